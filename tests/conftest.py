"""What holds for all tests: shapes are checked at run time, and long tests come first."""

import atexit
import os
import shutil
import tempfile

# Before JAX is imported: with libtpu installed, to compile for TPUs, it would look for one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test has compiled no other compiles, in whatever process; the user's own folder stays as it is.
    compiled = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(8 << 30)  # with a limit, readers wait for writers

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
    from flax_distil.planning.kernel_schedules import schedule_folder

    schedule_folder()  # the TPU compiler reads the request when it is loaded, by whatever test is the first
    # Where slow tests are not left out, what runs is what users run.
    if "not slow" in config.option.markexpr:
        from tests.quick_compilation import compile_quickly

        compile_quickly()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in HEAVY)
