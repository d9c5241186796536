"""Augmentation: as loud and as long as asked for, from the row's seed alone, and nothing where it is off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.audio.augmentation import (
    augment_samples,
    draw_recorded_noise,
    draw_speed,
    mix_noise,
    perturb_speed,
    spec_augment,
)
from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.mel import log_mel
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError

PROMPTS = Path(__file__).parents[2] / "examples" / "asterisk_prompts" / "validation"
WIDTH = 8 * 16_000
ROWS = 6
SEEDS = np.arange(ROWS, dtype=np.uint32) * 7919
WHITE = AugmentationConfig(white_noise_prob=1.0, noise_snr=(10.0, 10.0))
BABBLE = AugmentationConfig(babble_noise_prob=1.0, noise_snr=(5.0, 5.0))
MASKS = AugmentationConfig(
    mask_time_prob=0.2, mask_time_length=10, mask_feature_prob=0.2, mask_feature_length=8
)

augmented = jax.jit(augment_samples, static_argnums=0)
masked = jax.jit(spec_augment, static_argnums=0)


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    return np.array([len(samples) for samples in recordings()] + [0], np.int32)


def recordings() -> list[np.ndarray]:
    paths = sorted(PROMPTS.glob("*.ogg"))[: ROWS - 1]
    return [decode_audio(path)[:WIDTH] for path in paths]


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    """Five recorded prompts and a padding row."""
    rows = [np.pad(samples, (0, WIDTH - len(samples))) for samples in recordings()]
    return np.stack([*rows, np.zeros(WIDTH, np.float32)])


@pytest.fixture(scope="module")
def features(batch) -> np.ndarray:
    return np.asarray(log_mel(jnp.asarray(batch), num_mel_bins=80))


def snr(clean: np.ndarray, noisy: np.ndarray) -> float:
    noise = noisy.astype(np.float64) - clean
    return float(10 * np.log10(np.sum(np.square(clean, dtype=np.float64)) / np.sum(np.square(noise))))


def test_what_is_off_returns_the_very_input_and_compiles_to_nothing(batch, features, lengths):
    off = AugmentationConfig()
    assert not off.on_device
    samples, mel, width, seeds = (jnp.asarray(array) for array in (batch, features, lengths, SEEDS))
    assert augment_samples(off, samples, width, seeds) is samples
    assert spec_augment(off, mel, width, seeds) is mel
    for function, array in ((augmented, samples), (masked, mel)):
        compiled = function.lower(off, array, width, seeds).compile()
        assert not compiled.cost_analysis().get("flops", 0)
    assert WHITE.on_device
    assert MASKS.on_device


@pytest.mark.parametrize(("config", "wanted"), [(WHITE, 10.0), (BABBLE, 5.0)], ids=["white", "babble"])
def test_noise_has_the_ratio_that_was_asked_for_and_leaves_padding_silent(batch, lengths, config, wanted):
    noisy = np.asarray(augmented(config, batch, lengths, SEEDS))
    for row, length in enumerate(lengths[:-1]):
        assert snr(batch[row, :length], noisy[row, :length]) == pytest.approx(wanted, abs=0.1)
        assert not noisy[row, length:].any()
    assert not noisy[-1].any()


def test_every_row_draws_its_own_ratio_between_the_bounds(batch, lengths):
    config = AugmentationConfig(white_noise_prob=1.0, noise_snr=(0.0, 20.0))
    noisy = np.asarray(augmented(config, batch, lengths, SEEDS))
    ratios = [snr(batch[row, :n], noisy[row, :n]) for row, n in enumerate(lengths[:-1])]
    assert min(ratios) >= -0.1
    assert max(ratios) <= 20.1
    assert np.ptp(ratios) > 3
    assert len(np.unique(np.round(ratios, 2))) == ROWS - 1


def test_white_noise_is_white(batch, lengths):
    row, length = 0, int(lengths[0])
    noise = np.asarray(augmented(WHITE, batch, lengths, SEEDS))[row, :length] - batch[row, :length]
    power = np.square(np.abs(np.fft.rfft(noise)))
    quarters = [part.mean() for part in np.array_split(power, 4)]
    assert max(quarters) / min(quarters) < 1.2


def test_noise_comes_as_often_as_asked_for():
    samples = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    lengths, seeds = np.full(400, 400, np.int32), np.arange(400, dtype=np.uint32)
    config = AugmentationConfig(white_noise_prob=0.25)
    changed = (np.asarray(augmented(config, samples, lengths, seeds)) != samples).any(axis=1)
    assert 0.18 < changed.mean() < 0.32


def test_babble_is_made_of_the_other_rows(batch, lengths):
    noise = np.asarray(augmented(BABBLE, batch, lengths, SEEDS))[0] - batch[0]
    others = batch.copy()
    others[1:] *= np.float32(0.1)  # loudness is evened out
    assert snr(noise, np.asarray(augmented(BABBLE, others, lengths, SEEDS))[0] - batch[0]) > 60
    others[1:] = 0
    np.testing.assert_array_equal(augmented(BABBLE, others, lengths, SEEDS)[0], batch[0])
    np.testing.assert_array_equal(augmented(BABBLE, batch[:1], lengths[:1], SEEDS[:1]), batch[:1])


def test_masks_lie_within_the_recording_and_change_nothing_else(features, lengths):
    config = AugmentationConfig(mask_time_prob=0.2, mask_time_length=10)
    result = np.asarray(masked(config, features, lengths, SEEDS))
    changed = result != features
    assert not result[changed].any()
    for row, length in enumerate(lengths):
        hidden = changed[row].any(axis=1)
        assert (changed[row] == (hidden[:, None] & (features[row] != 0))).all()
        assert not hidden[length // 160 :].any()
        edges = np.flatnonzero(np.diff(hidden.astype(int), prepend=0, append=0)).reshape(-1, 2)
        assert all(stop - start >= 10 for start, stop in edges)
        assert 0.05 * (length // 160) < hidden.sum() <= 0.2 * (length // 160) + 10 or not length


def test_frequency_masks_are_bands_of_the_recording(features, lengths):
    config = AugmentationConfig(mask_feature_prob=0.2, mask_feature_length=8)
    result = np.asarray(masked(config, features, lengths, SEEDS))
    for row, length in enumerate(lengths[:-1]):
        frames = length // 160
        bands = (result[row, :frames] == 0).all(axis=0)
        assert 8 <= bands.sum() <= 0.2 * 80 + 8
        np.testing.assert_array_equal(result[row, frames:], features[row, frames:])
        np.testing.assert_array_equal(result[row][:, ~bands], features[row][:, ~bands])


def test_a_recording_shorter_than_a_mask_is_masked_as_a_whole_at_most(features):
    config = AugmentationConfig(mask_time_prob=1.0, mask_time_length=40)
    lengths = np.array([160 * 30] * ROWS, np.int32)
    result = np.asarray(masked(config, features, lengths, SEEDS))
    np.testing.assert_array_equal(result[:, 30:], features[:, 30:])
    assert any(not row[:30].any() for row in result)


@pytest.mark.parametrize("config", [WHITE, MASKS], ids=["noise", "masks"])
def test_a_row_follows_its_seed_and_not_its_place_or_company(batch, features, lengths, config):
    def run(rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        if config is WHITE:
            return np.asarray(augmented(config, batch[rows], lengths[rows], seeds))
        return np.asarray(masked(config, features[rows], lengths[rows], seeds))

    everyone, order = np.arange(ROWS), np.array([3, 0, 4])
    together = run(everyone, SEEDS)
    np.testing.assert_array_equal(run(everyone, SEEDS), together)
    # Not bit-equal: the compiler may order the sums of another shape differently.
    np.testing.assert_allclose(run(order, SEEDS[order]), together[order], rtol=0, atol=1e-6)
    others = run(everyone, SEEDS + np.uint32(1))
    assert all((others[row] != together[row]).any() for row in range(ROWS - 1))


def test_one_option_does_not_change_what_another_draws(batch, features, lengths):
    time_only = AugmentationConfig(mask_time_prob=0.2, mask_time_length=10)
    both = np.asarray(masked(MASKS, features, lengths, SEEDS))
    alone = np.asarray(masked(time_only, features, lengths, SEEDS))
    assert not both[alone == 0].any()


ON_EIGHT = """
import sys, json
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from tests.audio.test_augmentation import BABBLE, MASKS, WHITE
from flax_distil.audio.augmentation import augment_samples, spec_augment

rng = np.random.default_rng(0)
samples = rng.normal(size=(8, 1600)).astype(np.float32)
mel = rng.normal(size=(8, 100, 80)).astype(np.float32) + 9
lengths = (160 * rng.integers(5, 10, 8)).astype(np.int32)
seeds = np.arange(8, dtype=np.uint32)

def both(samples, mel, lengths, seeds):
    return augment_samples(WHITE, samples, lengths, seeds), spec_augment(MASKS, mel, lengths * 10, seeds)

def babble(samples, lengths, seeds):
    return augment_samples(BABBLE, samples, lengths, seeds)

one = jax.jit(both)(samples, mel, lengths, seeds)

def over(devices, function):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P("data")))

eight = over(8, both)(samples, mel, lengths, seeds)
halves = [jax.jit(babble)(samples[at], lengths[at], seeds[at]) for at in (slice(0, 4), slice(4, 8))]
babbles = np.concatenate(halves) - over(2, babble)(samples, lengths, seeds)
print(json.dumps({
    "devices": len(eight[0].sharding.device_set),
    "differences": [float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(one, eight)]
    + [float(np.abs(babbles).max())],
    "changed": [bool((np.asarray(a) != b).any()) for a, b in zip(one, (samples, mel))],
}))
"""


def test_eight_devices_do_what_one_does_and_babble_comes_from_the_rows_of_a_device():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is the cost
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == 8
    assert found["changed"] == [True, True]
    assert max(found["differences"]) < 1e-6


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_scales_length_and_pitch(factor):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.float32)
    changed = perturb_speed(tone, factor)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(32_000 / factor, abs=2)
    peak = np.argmax(np.abs(np.fft.rfft(changed))) * 16_000 / len(changed)
    assert peak == pytest.approx(440 * factor, abs=1)
    assert perturb_speed(tone, 1.0) is tone


def test_speeds_are_drawn_alike_and_never_beyond_thirty_seconds():
    config = AugmentationConfig(speed_factors=(0.9, 1.0, 1.1))
    random = np.random.default_rng(0)
    drawn = [draw_speed(config, seconds=5.0, random=random) for _ in range(900)]
    assert {factor: 250 < drawn.count(factor) < 350 for factor in (0.9, 1.0, 1.1)} == dict.fromkeys(
        (0.9, 1.0, 1.1), True
    )
    long = {draw_speed(config, seconds=27.5, random=random) for _ in range(50)}
    assert long == {1.0, 1.1}
    again = [draw_speed(config, seconds=5.0, random=np.random.default_rng(3)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("noise_seconds", [0.3, 60.0], ids=["short", "long"])
def test_recorded_noise_has_the_ratio_that_was_asked_for(noise_seconds):
    speech = recordings()[0]
    noise = np.random.default_rng(0).normal(size=int(noise_seconds * 16_000)).astype(np.float32) * 0.1
    mixed = mix_noise(speech, noise, 12.0, np.random.default_rng(1))
    assert mixed.dtype == np.float32
    assert snr(speech, mixed) == pytest.approx(12.0, abs=0.1)
    np.testing.assert_array_equal(mix_noise(speech, noise, 12.0, np.random.default_rng(1)), mixed)
    assert np.abs(mix_noise(speech, noise, -20.0, np.random.default_rng(1))).max() == 1.0
    np.testing.assert_array_equal(mix_noise(speech, noise * 0, 12.0, np.random.default_rng(1)), speech)


def test_recorded_noise_is_drawn_as_often_as_asked_for():
    config = AugmentationConfig(recorded_noise_prob=0.3, noise_snr=(3.0, 9.0))
    drawn = [draw_recorded_noise(config, np.random.default_rng([0, sample])) for sample in range(500)]
    ratios = [value for value in drawn if value is not None]
    assert 0.24 < len(ratios) / 500 < 0.36
    assert 3.0 <= min(ratios) < 4.0 < 8.0 < max(ratios) <= 9.0
    assert draw_recorded_noise(AugmentationConfig(), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"white_noise_prob": 1.5}, "white_noise_prob must lie between 0 and 1, got 1.5"),
        ({"mask_time_prob": float("nan")}, "mask_time_prob must lie between 0 and 1, got nan"),
        ({"mask_feature_length": 0}, "mask_feature_length must be at least 1, got 0"),
        ({"noise_snr": (20.0, 5.0)}, "noise_snr must be two numbers of dB, the smaller first"),
        ({"speed_factors": (0.9, 3.0)}, "speed_factors must be one or more numbers .* got 0.9, 3"),
        ({"speed_factors": ()}, "got none"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(options, message):
    with pytest.raises(InputError, match=message):
        AugmentationConfig(**options)
