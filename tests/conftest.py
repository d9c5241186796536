"""Fixtures shared by every room: real checkpoints, real speech, shapes checked at run time."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("flax_distil", "beartype.beartype")

CHECKPOINTS = Path(__file__).parent.parent / ".cache" / "checkpoints"


@pytest.fixture(scope="session")
def tiny_en_dir() -> Path:
    """OpenAI's Whisper tiny.en as a Hugging Face folder."""
    return CHECKPOINTS / "whisper-tiny.en"


@pytest.fixture(scope="session")
def base_dir() -> Path:
    """OpenAI's multilingual Whisper base as a Hugging Face folder."""
    return CHECKPOINTS / "whisper-base"
