"""Long recordings of real speech: prompts one after the other, with pauses, always in the same order."""

import functools
import json
from pathlib import Path

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio

PROMPTS = Path(__file__).resolve().parent.parent / "examples" / "asterisk_prompts"


@functools.lru_cache(maxsize=4)
def long_recording(seconds: float, *, split: str = "train", seed: int = 0) -> tuple[np.ndarray, str]:
    """Return at least so many seconds of 16 kHz samples, and what is said in them."""
    rows = [json.loads(line) for line in (PROMPTS / split / "metadata.jsonl").read_text().splitlines()]
    random = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    texts: list[str] = []
    length = 0
    for index in random.permutation(len(rows)):
        samples = decode_audio(PROMPTS / split / rows[index]["file_name"])
        pause = np.zeros(int(random.uniform(0.2, 1.2) * SAMPLING_RATE), np.float32)
        parts += [samples, pause]
        texts.append(rows[index]["text"])
        length += len(samples) + len(pause)
        if length >= seconds * SAMPLING_RATE:
            break
    return np.concatenate(parts), " ".join(texts)
