"""Fixtures shared by every room: real checkpoints, real speech, shapes checked at run time."""

import os
from pathlib import Path

# Before JAX is imported: with libtpu installed, to compile for TPUs, it would look for one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Here and in the processes that tests start: nothing is written into the user's home.
os.environ.setdefault("FLAX_DISTIL_COMPILATION_CACHE", "off")

import pytest
from jaxtyping import install_import_hook

install_import_hook("flax_distil", "beartype.beartype")

from tests.fixtures import flawed, limited_files, small_disk, teacher  # noqa: E402, F401 (fixtures)
from tests.quick_compilation import compile_quickly  # noqa: E402
from tests.real_checkpoints import CHECKPOINTS, ensure_checkpoints  # noqa: E402 (after the hook)

HEAVY = (
    "distillation", "pseudo_labeling", "evaluation", "pipeline", "parallel", "parity", "cli", "planning",
    "transcription", "decoding", "model", "inspection", "golden",
)  # fmt: skip
"""Folders whose files take minutes: they come first, so that no worker waits for another at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly where slow tests are left out; where they are not, what runs is what users run."""
    if config.option.markexpr == "not slow":
        compile_quickly()


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
