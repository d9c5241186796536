"""Clips without speech among training samples: instead of a sample, or before and behind its speech."""

import dataclasses
import math

import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.audio.non_speech.clips import NonSpeechClip, root_mean_square
from flax_distil.audio.non_speech.config import NonSpeechConfig
from flax_distil.core.arrays import Float

_GRID = SAMPLING_RATE // 50
"""Samples between two timestamps, which are 0.02 s apart; speech moves by multiples of it."""

_TRAINING_SETS = 2**32
"""Added to a seed, so that no evaluation, whatever its seed, has clips of training."""

PADDING_SNR_DB = (5.0, 40.0)
"""By how many dB the sound around speech is fainter than the speech, at least and at most."""


class NonSpeechMixer:
    """Draws clips for samples; any thread may use it.

    Args:
        config: How often, and of how many clips.
        seed: Seed of the clips.
        window_seconds: Maximum duration of a sample.
    """

    def __init__(self, config: NonSpeechConfig, *, seed: int, window_seconds: float = float(CHUNK_SECONDS)):
        self.config = config
        self._seed, self._window_seconds = seed + _TRAINING_SETS, window_seconds

    def draw_clip(self, random: np.random.Generator) -> int | None:
        """Draw whether a sample is replaced by a clip: the number of the clip, or None.

        Args:
            random: Random numbers of this sample in this epoch, which are used for nothing but this class.
        """
        drawn, number = random.random(), int(random.integers(self.config.non_speech_clips))
        return number if drawn < self.config.non_speech_probability else None

    def clip(self, number: int) -> NonSpeechClip:
        """Return a clip by its number."""
        return NonSpeechClip.of(self._seed, number, longest_seconds=self._window_seconds)

    def surround(
        self, samples_W: Float[np.ndarray, " W"], random: np.random.Generator
    ) -> tuple[Float[np.ndarray, " _"], float]:
        """Put one sound before and behind speech, within the window, as often as configured.

        Args:
            samples_W: Speech, float32 at 16 kHz.
            random: Random numbers, after :meth:`draw_clip` has used them.

        Returns:
            The samples, and by how many seconds the speech begins later: a multiple of 0.02.
        """
        drawn, number = random.random(), int(random.integers(self.config.non_speech_clips))
        room = math.floor(self._window_seconds * SAMPLING_RATE) - len(samples_W)
        before = int(random.integers(max(0, room) // _GRID + 1)) * _GRID
        behind = int(random.integers(max(0, room - before) + 1))
        snr = float(random.uniform(*PADDING_SNR_DB))
        if drawn >= self.config.non_speech_padding_probability or not before + behind:
            return samples_W, 0.0
        level = root_mean_square(samples_W)
        clip = dataclasses.replace(self.clip(number), seconds=(before + behind) / SAMPLING_RATE)
        if clip.level_dbfs is not None and level:
            clip = dataclasses.replace(clip, level_dbfs=20.0 * math.log10(level) - snr)
        sound_W = clip.samples()
        return np.concatenate([sound_W[:before], samples_W, sound_W[before:]]), before / SAMPLING_RATE
