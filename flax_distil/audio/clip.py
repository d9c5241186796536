"""Pad or trim a recording to the length of one window."""

import numpy as np

from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.core.arrays import Float, Int


def pad_or_trim(
    samples_W: Float[np.ndarray, " W"], *, length: int = CHUNK_SAMPLES
) -> Float[np.ndarray, " length"]:
    """Append zeros, or cut the end off, until there are ``length`` samples.

    The cut is silent: a caller that may meet audio over 30 s checks the duration
    first and rejects it, or walks over it in windows.

    Args:
        samples_W: Mono samples at 16 kHz.
        length: Samples wanted; 30 s by default.

    Returns:
        float32 ``[length]``, a new array.
    """
    clip = np.zeros(length, np.float32)
    kept = samples_W[:length]
    clip[: len(kept)] = kept
    return clip


def to_int16(samples_W: Float[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Return samples in [-1, 1] as int16; those of a 16-bit file come back as they were."""
    return np.clip(np.rint(samples_W * 32768.0), -32768, 32767).astype(np.int16)
