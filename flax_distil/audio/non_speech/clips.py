"""Clips without speech: an endless numbered set, of which every clip follows from a seed and its number.

The kinds take turns, so any number of consecutive clips has all of them in equal parts. Nothing is recorded:
no licence and no download is needed, and nobody says a word in any of them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.audio.non_speech.crowd import make_crowd
from flax_distil.audio.non_speech.music import make_music
from flax_distil.audio.non_speech.noises import (
    brown_noise,
    make_clicks,
    make_hum,
    pink_noise,
    silence,
    white_noise,
)
from flax_distil.core.arrays import Float

MIN_SECONDS = 1.0

LEVELS_DBFS = (-60.0, -12.0)
"""Lowest and highest root mean square of a clip, in dB of full scale."""

_GENERATORS: Mapping[str, Callable[[int, np.random.Generator], Float[np.ndarray, " W"]]] = {
    "silence": silence,
    "white": white_noise,
    "pink": pink_noise,
    "brown": brown_noise,
    "hum": make_hum,
    "clicks": make_clicks,
    "music": make_music,
    "crowd": make_crowd,
}

KINDS = tuple(_GENERATORS)
"""The kinds of sounds, in the order of their turns."""


@dataclass(frozen=True, kw_only=True)
class NonSpeechClip:
    """One clip of the set, described; :meth:`samples` makes its sound.

    Attributes:
        seed: Seed of the set.
        number: Number of the clip, counted from 0.
        seconds: Its length.
        level_dbfs: Root mean square in dB of full scale; lower where peaks would exceed full scale. Digital
            silence has none.
    """

    seed: int
    number: int
    seconds: float
    level_dbfs: float | None

    @classmethod
    def of(cls, seed: int, number: int, *, longest_seconds: float = float(CHUNK_SECONDS)) -> "NonSpeechClip":
        """Return a clip of the set of a seed.

        Args:
            seed: Seed of the set.
            number: Number of the clip.
            longest_seconds: Length of the longest clip; lengths are spread evenly on a logarithmic scale, and
                each is a multiple of 0.02 s.
        """
        random = np.random.default_rng([seed, number])
        low, high = math.log(min(MIN_SECONDS, longest_seconds)), math.log(longest_seconds)
        seconds = math.floor(math.exp(random.uniform(low, high)) * 50) / 50
        level = float(random.uniform(*LEVELS_DBFS))
        is_silent = KINDS[number % len(KINDS)] == "silence"
        return cls(seed=seed, number=number, seconds=seconds, level_dbfs=None if is_silent else level)

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return KINDS[self.number % len(KINDS)]

    @property
    def name(self) -> str:
        """Stable name of the clip, such as ``music-0006``."""
        return f"{self.kind}-{self.number:04d}"

    def samples(self) -> Float[np.ndarray, " W"]:
        """Return the sound as float32 at 16 kHz in [-1, 1]."""
        # A stream of its own, so that the sound does not depend on how its length was drawn.
        random = np.random.default_rng([self.seed, self.number, 1])
        sound_W = _GENERATORS[self.kind](round(self.seconds * SAMPLING_RATE), random)
        return sound_W.astype(np.float32) if self.level_dbfs is None else at_level(sound_W, self.level_dbfs)


def at_level(sound_W: Float[np.ndarray, " W"], level_dbfs: float) -> Float[np.ndarray, " W"]:
    """Return a sound with a root mean square in dB of full scale, or fainter where peaks would exceed it.

    Args:
        sound_W: Any scale; a sound of zeros stays as it is.
        level_dbfs: Wanted level.

    Returns:
        float32 in [-1, 1].
    """
    level, peak = root_mean_square(sound_W), float(np.abs(sound_W).max(initial=0.0))
    if not level:
        return np.zeros(len(sound_W), np.float32)
    return (sound_W * min(10 ** (level_dbfs / 20) / level, 1.0 / peak)).astype(np.float32)


def root_mean_square(sound_W: Float[np.ndarray, " W"]) -> float:
    """Return the root mean square of a sound; 0 where there is none."""
    return float(np.sqrt(np.mean(np.square(sound_W, dtype=np.float64)))) if len(sound_W) else 0.0
