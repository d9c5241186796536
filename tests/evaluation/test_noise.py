"""Noise is as loud as asked for, and the same whoever asks and in whatever order."""

import concurrent.futures
import json

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DecodedExample, SampleReader
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from flax_distil.evaluation.config import CLEAN, NoiseCondition
from flax_distil.evaluation.noise import NoiseMaker

NOISES = ("white", "babble", "recorded")


@pytest.fixture(scope="module")
def data(prompts_dir):
    return load_table(DatasetSpec(name=str(prompts_dir), split="validation", max_samples=8))


@pytest.fixture(scope="module")
def humming(tmp_path_factory):
    """A data set of one recording of noise, shorter than the prompts."""
    folder = tmp_path_factory.mktemp("noise")
    tone_W = 0.1 * np.sin(2 * np.pi * 50 * np.arange(SAMPLING_RATE) / SAMPLING_RATE)
    soundfile.write(folder / "hum.wav", tone_W, SAMPLING_RATE)
    path = folder / "noise.jsonl"
    path.write_text(json.dumps({"audio": "hum.wav"}) + "\n")
    return load_table(DatasetSpec(name=str(path)))


@pytest.fixture(scope="module")
def samples(data) -> list[DecodedExample]:
    reader = SampleReader(data)
    return [reader.read(row) for row in range(len(data))]


def maker(data, humming, *, seed: int = 0) -> NoiseMaker:
    made = NoiseMaker(data, humming, seed=seed)
    for noise in NOISES:
        made.prepare(NoiseCondition(noise=noise, snr=0.0))
    return made


def split(mixed_W: np.ndarray, sample: DecodedExample) -> tuple[np.ndarray, float]:
    """Return the noise that was added, and the factor by which all was made fainter."""
    clean_W = sample.samples_W
    # Noise and speech are uncorrelated enough over seconds to find the factor by regression.
    factor = float(mixed_W @ clean_W / (clean_W @ clean_W))
    return mixed_W - factor * clean_W, factor


def ratio(mixed_W: np.ndarray, sample: DecodedExample) -> float:
    noise_W, factor = split(mixed_W.astype(float), sample)
    return 10 * np.log10(np.mean(np.square(factor * sample.samples_W)) / np.mean(np.square(noise_W)))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("snr", [30.0, 10.0, 0.0])
def test_the_ratio_is_the_one_asked_for(noise, snr, data, humming, samples):
    heard = maker(data, humming)
    for sample in samples[:4]:
        mixed_W = heard(sample, NoiseCondition(noise=noise, snr=snr))
        assert mixed_W.dtype == np.float32
        assert mixed_W.shape == sample.samples_W.shape
        assert np.abs(mixed_W).max() <= 1
        assert ratio(mixed_W, sample) == pytest.approx(snr, abs=0.5)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_depends_on_the_recording_and_the_seed_alone(noise, data, humming, samples):
    condition = NoiseCondition(noise=noise, snr=5.0)
    first, again, other = (maker(data, humming, seed=seed) for seed in (0, 0, 1))
    forth = [first(sample, condition) for sample in samples]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        back = list(pool.map(lambda sample: again(sample, condition), reversed(samples)))[::-1]
    for one, two in zip(forth, back, strict=True):
        np.testing.assert_array_equal(one, two)
    if noise != "recorded":  # of one recording that goes round, where it begins is all there is to draw
        assert not np.array_equal(forth[0], other(samples[0], condition))


def test_every_ratio_has_the_same_noise(data, humming, samples):
    heard = maker(data, humming)
    noises = []
    for snr in (20.0, 30.0):
        noise_W, factor = split(heard(samples[0], NoiseCondition(noise="white", snr=snr)), samples[0])
        noises.append(noise_W / factor * 10 ** (snr / 20))
    # not exactly: what speech and noise have in common counts for the factor
    assert np.corrcoef(*noises)[0, 1] > 0.999


def test_quiet_leaves_a_recording_as_it_is(data, humming, samples):
    assert maker(data, humming)(samples[0], CLEAN) is samples[0].samples_W


def test_babble_is_made_of_others(data, samples):
    """Of two recordings, the babble of one is the other going round."""
    two = data.select([0, 1])
    heard = NoiseMaker(two, None, seed=0)
    condition = NoiseCondition(noise="babble", snr=0.0)
    heard.prepare(condition)
    noise_W, _ = split(heard(samples[0], condition), samples[0])
    other_N = samples[1].samples_W
    repeated_W = np.resize(other_N, len(noise_W) + len(other_N))
    found = np.fft.irfft(np.fft.rfft(repeated_W, 1 << 18) * np.conj(np.fft.rfft(noise_W, 1 << 18)))
    norms = np.linalg.norm(noise_W) * np.linalg.norm(repeated_W[: len(noise_W)])
    assert found.max() / norms > 0.95


def test_too_little_to_make_babble_of_is_said(data):
    with pytest.raises(InputError, match="babble is made of other recordings, and data set"):
        NoiseMaker(data.select([0]), None, seed=0).prepare(NoiseCondition(noise="babble", snr=0.0))
