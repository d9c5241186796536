"""Draw the augmentation of each sample, and do the part on the host: speed and recorded noise."""

import dataclasses
import functools
import math

import numpy as np

from flax_distil.audio.augmentation import draw_recorded_noise, draw_speed, mix_noise, perturb_speed
from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DecodedExample, DurationLimits, SampleError, decode_row
from flax_distil.data.skipped import SkippedSamples
from flax_distil.storage.retries import RetryPolicy

NOISES_HELD = 32
"""Number of decoded recordings of noise that are kept in memory."""


class Augmenter:
    """Augments samples, each with its own random numbers; any thread may use it.

    Args:
        config: The augmentation.
        noise: Recordings of noise of any length, which are needed if recorded noise is added.
        policy: Policy for repeating failed requests; by default the policy of the data set.
        window_seconds: Maximum duration of a sample.
        skipped: Collector of noise that cannot be read; a sample that drew such noise stays clean.

    Raises:
        InputError: If recorded noise is to be added, and there is none.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        noise: SpeechDataset | None,
        *,
        policy: RetryPolicy | None,
        window_seconds: float = float(CHUNK_SECONDS),
        skipped: SkippedSamples,
    ):
        if config.recorded_noise_prob and noise is None:
            raise InputError("recorded noise is to be added, but no data set of noise is given: name one")
        self.config = config
        self._noise, self._policy, self._skipped = noise, policy, skipped
        self._window_seconds = window_seconds
        self._changes_speed = config.speeds != (1.0,)
        self._decoded = functools.lru_cache(NOISES_HELD)(self._decode)

    def __call__(self, sample: DecodedExample, random: np.random.Generator) -> DecodedExample:
        """Augment a sample; one without audio is returned unchanged.

        Args:
            sample: Sample of at most 30 s.
            random: Random numbers of this sample in this epoch. A child generator is used, so that other
                draws do not change.
        """
        samples_W, speed = sample.samples_W, 1.0
        changes = self._changes_speed or self._noise is not None or self.config.on_device
        if samples_W is None or not changes:
            return sample
        (random,) = random.spawn(1)
        if self._changes_speed:
            seconds = sample.duration_seconds
            speed = draw_speed(self.config, seconds=seconds, random=random, longest=self._window_seconds)
            samples_W = perturb_speed(samples_W, speed)
        if self._noise is not None:
            snr = draw_recorded_noise(self.config, random)
            noise_N = None if snr is None else self._decoded(int(random.integers(len(self._noise))))
            if snr is not None and noise_N is not None:
                samples_W = mix_noise(samples_W, noise_N, snr, random)
        return dataclasses.replace(
            sample,
            samples_W=samples_W,
            duration_seconds=len(samples_W) / SAMPLING_RATE,
            speed=speed,
            seed=int(random.integers(1 << 32)),
        )

    def _decode(self, index: int) -> Float[np.ndarray, " N"] | None:
        assert self._noise is not None
        row = self._noise.row(index)
        try:
            return decode_row(row, DurationLimits(max_seconds=math.inf), policy=self._policy).samples_W
        except SampleError as error:
            self._skipped.reject(row, error, data_set=self._noise.name)
            return None
