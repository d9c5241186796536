"""Noise for evaluation: the same in every run, for every model and at every ratio.

What is added to a recording depends on its name, on the data set and on the seed alone, so models
are compared on the same audio, and ratios on the same noise made louder.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from flax_distil.audio.augmentation import BABBLE_TALKERS, mix_noise
from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DecodedExample, DurationLimits, SampleError, SampleReader
from flax_distil.data.preprocessing.labels import sample_random
from flax_distil.evaluation.config import NoiseCondition
from flax_distil.evaluation.streams import EvaluationSet

MAX_NOISE_RECORDINGS = 32
"""Recordings that noise is made of, at most, 30 s of each."""


class NoiseMaker:
    """Adds noise to the recordings of one data set; any thread may use it.

    Args:
        data: The data set, whose other recordings babble is made of; of a stream there is no babble.
        recorded: Recordings of noise, where those are asked for.
        seed: Of the draws.
    """

    def __init__(self, data: EvaluationSet, recorded: SpeechDataset | None, *, seed: int):
        self._data, self._recorded, self._seed = data, recorded, seed

    def prepare(self, condition: NoiseCondition) -> None:
        """Decode what its noise is made of, before threads ask for it.

        Raises:
            InputError: If there is too little.
        """
        if condition.noise == "babble" and len(self._talkers) < 2:
            raise InputError(
                f"babble is made of other recordings, and data set {self._data.name!r} has too few that can "
                "be read: leave babble out of noise_types"
            )
        if condition.noise == "recorded" and not self._noises:
            raise InputError("noise_dataset_name has no recording that can be read: name another")

    def __call__(self, sample: DecodedExample, condition: NoiseCondition) -> Float[np.ndarray, " W"]:
        """Return the samples of a recording with the noise of a condition.

        Args:
            sample: With its audio.
            condition: Prepared.

        Returns:
            Its samples and the noise; made fainter as a whole where they would exceed full scale.
        """
        samples_W = sample.samples_W
        assert samples_W is not None
        if condition.noise is None or condition.snr is None:
            return samples_W
        random = sample_random(
            seed=self._seed, epoch=0, sample_id=f"{condition.noise} {self._data.name} {sample.sample_id}"
        )
        if condition.noise == "white":
            noise_N = random.standard_normal(len(samples_W), dtype=np.float32)
        elif condition.noise == "babble":
            noise_N = self._babble(len(samples_W), sample.index, random)
        else:
            noise_N = self._noises[random.choice(sorted(self._noises))]
        return mix_noise(samples_W, noise_N, condition.snr, random)

    def _babble(self, length: int, own: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
        """Lay other recordings over each other, equally loud, each beginning anywhere and going round."""
        others = sorted(self._talkers.keys() - {own})
        babble_W = np.zeros(length, np.float32)
        for talker in random.permutation(others)[:BABBLE_TALKERS]:
            speech_N = self._talkers[int(talker)]
            turned_N = np.roll(speech_N, int(random.integers(len(speech_N))))
            babble_W += np.resize(turned_N, length) / _level(speech_N)
        return babble_W

    @functools.cached_property
    def _talkers(self) -> Mapping[int, Float[np.ndarray, " _"]]:
        assert isinstance(self._data, SpeechDataset)  # the configuration refuses babble of a stream
        return _decode_recordings(self._data, self._seed)

    @functools.cached_property
    def _noises(self) -> Mapping[int, Float[np.ndarray, " _"]]:
        assert self._recorded is not None
        return _decode_recordings(self._recorded, self._seed)


def _decode_recordings(data: SpeechDataset, seed: int) -> dict[int, Float[np.ndarray, " _"]]:
    """Decode some recordings that are not silent, by row; those that cannot be read are passed over."""
    reader = SampleReader(data, DurationLimits(max_seconds=math.inf))
    found: dict[int, Float[np.ndarray, " _"]] = {}
    for row in np.random.default_rng(seed).permutation(len(data)).tolist():
        if len(found) == MAX_NOISE_RECORDINGS:
            break
        try:
            samples_W = reader.read(row).samples_W
        except SampleError:
            continue
        assert samples_W is not None
        if _level(samples_W[:CHUNK_SAMPLES]):
            found[row] = samples_W[:CHUNK_SAMPLES].copy()
    return found


def _level(samples_W: Float[np.ndarray, " _"]) -> np.float32:
    return np.sqrt(np.mean(np.square(samples_W)))
