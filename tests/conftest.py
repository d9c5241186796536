"""What holds for all tests: shapes are checked at run time, and long tests come first."""

import os

# Before JAX is imported: with libtpu installed, to compile for TPUs, it would look for one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Here and in the processes that tests start: nothing is written into the user's home.
os.environ.setdefault("FLAX_DISTIL_COMPILATION_CACHE", "off")

import pytest
from jaxtyping import install_import_hook

install_import_hook("flax_distil", "beartype.beartype")

HEAVY = (
    "distillation", "pseudo_labeling", "evaluation", "pipeline", "parallel", "parity", "cli", "planning",
    "transcription", "decoding", "model", "inspection", "golden",
)  # fmt: skip
"""Folders whose files take minutes: they come first, so that no worker waits for another at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Load what every test needs; in a process that only hands tests to others there are none."""
    if config.getoption("tx", None) and not hasattr(config, "workerinput"):
        return
    config.pluginmanager.import_plugin("tests.fixtures")
    # Where slow tests are not left out, what runs is what users run.
    if config.option.markexpr == "not slow":
        from tests.quick_compilation import compile_quickly

        compile_quickly()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in HEAVY)
