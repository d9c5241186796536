"""Checks of settings that several configurations share."""

from typing import Any

from flax_distil.core.errors import InputError


def check_positive(config: Any, *names: str) -> None:
    """Raise ``InputError`` if one of the named settings is given and is below 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is below 1")
