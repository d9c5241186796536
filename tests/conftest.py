"""Fixtures shared by every room: real checkpoints, real speech, shapes checked at run time."""

import os
from pathlib import Path

# Before JAX is imported: with libtpu installed, to compile for TPUs, it would look for one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Here and in the processes that tests start: nothing is written into the user's home.
os.environ.setdefault("FLAX_DISTIL_COMPILATION_CACHE", "off")

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("flax_distil", "beartype.beartype")

from tests.checkpoints import CHECKPOINTS, ensure_checkpoints  # noqa: E402 (after the hook)

HEAVY = (
    "workflows", "parallel", "parity", "distillation", "cli", "planning", "transcription", "generation",
    "model",
)  # fmt: skip
"""Folders whose files take minutes: they come first, so that no worker waits for another at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile for CPUs quickly, not well, where slow tests are left out; the others run what users run.

    Most of the time of quick tests would be XLA's optimisations.
    """
    if config.option.markexpr == "not slow":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"
        jax.devices()  # reads the flags
        os.environ["XLA_FLAGS"] = flags  # the TPU compiler, which reads them too, ends the process at a CPU's
        jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in HEAVY)


@pytest.fixture(scope="session")
def tiny_en_dir() -> Path:
    """OpenAI's Whisper tiny.en as a Hugging Face folder."""
    ensure_checkpoints(("tiny.en",))
    return CHECKPOINTS / "whisper-tiny.en"


@pytest.fixture(scope="session")
def base_dir() -> Path:
    """OpenAI's multilingual Whisper base as a Hugging Face folder."""
    ensure_checkpoints(("base",))
    return CHECKPOINTS / "whisper-base"


@pytest.fixture(scope="session")
def prompts_dir() -> Path:
    """The recorded prompts, with splits train and validation."""
    return Path(__file__).parent.parent / "examples" / "asterisk_prompts"
