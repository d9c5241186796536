"""Recordings, what is said in them, and a look at what is compiled."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.audio.reading.decoding import decode_audio

NAMES = ("all-circuits-busy-now", "please-try-call-later")


@pytest.fixture(scope="session")
def texts(prompts_dir: Path) -> list[str]:
    """What is said in the recordings, according to their metadata."""
    rows = [json.loads(line) for line in (prompts_dir / "validation/metadata.jsonl").read_text().splitlines()]
    said = {Path(row["file_name"]).stem: row["text"] for row in rows}
    return [said[name] for name in NAMES]


@pytest.fixture(scope="session")
def speech(prompts_dir: Path) -> np.ndarray:
    return np.stack([pad_or_trim(decode_audio(prompts_dir / f"validation/{name}.ogg")) for name in NAMES])


@pytest.fixture(scope="session")
def speech_and_silence(speech: np.ndarray) -> np.ndarray:
    return np.concatenate([speech, np.zeros((1, CHUNK_SAMPLES), np.float32)])


@pytest.fixture
def compilations(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[], Any]], list[str]]:
    """Return a function that runs another and names the programs compiled meanwhile."""

    def names(run: Callable[[], Any]) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING), jax.log_compiles():
            run()
        messages = [record.getMessage() for record in caplog.records]
        return [message.split()[1] for message in messages if message.startswith("Compiling ")]

    return names
