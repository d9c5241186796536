"""A teacher that is a toy, and compilations to match."""

from pathlib import Path

import jax
import pytest

from tests.workflows.distil_toys import write_teacher


@pytest.fixture(scope="module")
def quick_compilations():
    """Leave most optimisations out: toys run in no time, and compiling is their cost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def teacher(tiny_en_dir, tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "toy.en", tiny_en_dir)
