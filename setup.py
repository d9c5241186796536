"""Packaging of flax_distil; tool settings are in pyproject.toml."""

from setuptools import find_packages, setup

setup(name="flax-distil", version="0.1.0", packages=find_packages(include=["flax_distil*"]), python_requires=">=3.11")
