"""Augmentation of the training audio: noise, speed, SpecAugment and babble.

Noise and masks are made on the device, from a seed per row: what happens to a row depends on its
seed alone (babble: on the rows of its device as well), not on its place in the batch or on the
number of devices. Speed and recorded noise change a recording on the host, before it is batched.
What is off costs nothing and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import soxr
from jax import lax

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.constants import CHUNK_SECONDS, HOP_LENGTH, SAMPLING_RATE
from flax_distil.audio.mel import as_float
from flax_distil.core.arrays import Array, Bool, Float, Int, UInt

T = TypeVar("T")

BABBLE_TALKERS = 4
"""Number of rows that babble is made of."""

# Each draw of a row has a stream of its own, so that switching one option on leaves the others as they were.
TIME_MASK, FEATURE_MASK, WHITE_NOISE, WHITE_SNR, BABBLE_NOISE, BABBLE_SNR = range(6)


@dataclass(frozen=True, kw_only=True)
class Talkers:
    """The recordings that babble is made of, where they are more than the rows to which it is added.

    Attributes:
        samples_NW: float32 or int16, 16 kHz, padded.
        lengths_N: Samples of each recording.
        first: Which of them is the first row that gets babble; the others follow it.
    """

    samples_NW: Float[Array, "N W"] | Int[Array, "N W"]
    lengths_N: Int[Array, " N"]
    first: Array | int = 0


def augment_samples(
    config: AugmentationConfig,
    samples_BW: Float[Array, "B W"],
    lengths_B: Int[Array, " B"],
    seed_B: UInt[Array, " B"],
    talkers: Talkers | None = None,
) -> Float[Array, "B W"]:
    """Add white noise and babble; pure, so call it inside the jitted step.

    Noise is as long as the recording: the padding stays silent. The ratio is that of the mean powers
    over the recording's length. The sum may exceed full scale, which log-mel features allow.

    Args:
        config: What to add, how often and how loud.
        samples_BW: float32, 16 kHz, padded.
        lengths_B: Samples of each recording; 0 in padding rows.
        seed_B: uint32, one per row and epoch.
        talkers: The recordings that babble is made of; by default the rows themselves.

    Returns:
        The samples; the very array where neither is switched on.
    """
    talkers = talkers or Talkers(samples_NW=samples_BW, lengths_N=lengths_B)
    clean_BW = samples_BW
    if config.white_noise_prob:
        samples_BW = _with_noise(
            samples_BW,
            clean_BW,
            _per_row(lambda key: jax.random.normal(key, clean_BW.shape[1:]), seed_B, WHITE_NOISE),
            lengths_B,
            _drawn_snr(config.white_noise_prob, config.snr_range, seed_B, WHITE_SNR),
        )
    if config.babble_noise_prob and len(talkers.samples_NW) > 1:
        samples_BW = _with_noise(
            samples_BW,
            clean_BW,
            _babble(talkers, lengths_B, seed_B),
            lengths_B,
            _drawn_snr(config.babble_noise_prob, config.snr_range, seed_B, BABBLE_SNR),
        )
    return samples_BW


def spec_augment(
    config: AugmentationConfig,
    mel_BRM: Float[Array, "B R M"],
    lengths_B: Int[Array, " B"],
    seed_B: UInt[Array, " B"],
) -> Float[Array, "B R M"]:
    """Mask stretches of time and bands of mel bins; pure, so call it inside the jitted step.

    As in transformers' Whisper, masks have one length, may overlap, and set normalized features to 0;
    unlike there, all masks stay within the recording, and there is no minimum number of masks.

    Args:
        config: How much to mask.
        mel_BRM: Log-mel features of padded recordings.
        lengths_B: Samples (not frames) of each recording; 0 in padding rows.
        seed_B: uint32, one per row and epoch.

    Returns:
        The features; the very array where neither is switched on.

    Source: SpecAugment (arXiv 1904.08779).
    """
    frames_B = jnp.minimum(lengths_B // HOP_LENGTH, mel_BRM.shape[1])
    inside_BR = jnp.arange(mel_BRM.shape[1]) < frames_B[:, None]
    if config.mask_time_prob:
        masked_BR = _masks(
            mel_BRM.shape[1],
            frames_B,
            config.mask_time_prob,
            config.mask_time_length,
            seed_B,
            TIME_MASK,
        )
        mel_BRM = jnp.where((masked_BR & inside_BR)[:, :, None], 0.0, mel_BRM)
    if config.mask_feature_prob:
        bins = mel_BRM.shape[2]
        masked_BM = _masks(
            bins,
            jnp.full_like(frames_B, bins),
            config.mask_feature_prob,
            config.mask_feature_length,
            seed_B,
            FEATURE_MASK,
        )
        mel_BRM = jnp.where(masked_BM[:, None, :] & inside_BR[:, :, None], 0.0, mel_BRM)
    return mel_BRM


def draw_speed(
    config: AugmentationConfig,
    *,
    seconds: float,
    random: np.random.Generator,
    longest: float = float(CHUNK_SECONDS),
) -> float:
    """Draw the speed of one recording; 1.0 where that speed would stretch it to ``longest`` or more.

    Divide the timestamps of its label by the factor.

    Args:
        config: Which speeds.
        seconds: Length of the recording.
        random: Random numbers of this sample in this epoch.
        longest: Seconds that the encoder hears at once.
    """
    factor = float(random.choice(config.speeds))
    return factor if seconds / factor < longest else 1.0


def perturb_speed(samples_W: Float[np.ndarray, " W"], factor: float) -> Float[np.ndarray, " _"]:
    """Play a recording faster or slower, which changes its pitch too.

    Args:
        samples_W: float32 at 16 kHz.
        factor: Above 1 is faster.

    Returns:
        ``W / factor`` samples in [-1, 1]; the very array where the factor is 1.
    """
    if factor == 1.0:
        return samples_W
    resampled = soxr.resample(samples_W, SAMPLING_RATE * factor, SAMPLING_RATE, quality="HQ")
    return np.clip(resampled, -1.0, 1.0, dtype=np.float32)


def draw_recorded_noise(config: AugmentationConfig, random: np.random.Generator) -> float | None:
    """Draw whether one recording gets recorded noise: the signal-to-noise ratio in dB, or None.

    Args:
        config: How often and how loud.
        random: Random numbers of this sample in this epoch.
    """
    drawn, snr = random.random(), float(random.uniform(*config.snr_range))
    return snr if drawn < config.recorded_noise_prob else None


def mix_noise(
    samples_W: Float[np.ndarray, " W"],
    noise_N: Float[np.ndarray, " N"],
    snr: float,
    random: np.random.Generator,
) -> Float[np.ndarray, " W"]:
    """Add a part of recorded noise, which is repeated if it is too short.

    Args:
        samples_W: float32 at 16 kHz.
        noise_N: Noise at 16 kHz; at least one sample.
        snr: Signal-to-noise ratio in dB, over the whole recording.
        random: Draws where in the noise the piece begins.

    Returns:
        The sum, made fainter as a whole where it would exceed full scale.
    """
    start = int(random.integers(max(1, len(noise_N) - len(samples_W) + 1)))
    piece_W = np.resize(noise_N[start:], samples_W.shape)
    noise_power = np.mean(np.square(piece_W, dtype=np.float64))
    if not noise_power:
        return samples_W
    gain = np.sqrt(np.mean(np.square(samples_W, dtype=np.float64)) / noise_power * 10 ** (-snr / 10))
    mixed_W = samples_W + piece_W * np.float32(gain)
    return mixed_W / max(np.float32(1.0), np.abs(mixed_W).max())


def _per_row(draw: Callable[[Array], T], seed_B: UInt[Array, " B"], stream: int) -> T:
    """Call a function of a random key for every row; the kind of key does not depend on the platform."""
    return jax.vmap(lambda seed: draw(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)))(
        seed_B
    )


def _drawn_snr(
    probability: float, between: tuple[float, float], seed_B: UInt[Array, " B"], stream: int
) -> Float[Array, " B"]:
    """Draw the signal-to-noise ratio of each row in dB; infinite for a row without noise."""

    def draw(key: Array) -> Array:
        whether, snr = jax.random.split(key)
        drawn = jax.random.uniform(snr, minval=between[0], maxval=between[1])
        return jnp.where(jax.random.uniform(whether) < probability, drawn, jnp.inf)

    return _per_row(draw, seed_B, stream)


def _with_noise(
    samples_BW: Float[Array, "B W"],
    clean_BW: Float[Array, "B W"],
    noise_BW: Float[Array, "B W"],
    lengths_B: Int[Array, " B"],
    snr_B: Float[Array, " B"],
) -> Float[Array, "B W"]:
    """Add noise to samples at the given signal-to-noise ratio."""
    inside_BW = _inside(clean_BW, lengths_B)
    noise_BW = jnp.where(inside_BW, noise_BW, 0.0)
    wanted_B = _energy(jnp.where(inside_BW, clean_BW, 0.0)) * 10 ** (-snr_B / 10)
    noise_B = _energy(noise_BW)
    gain_B = jnp.where(noise_B > 0, jnp.sqrt(wanted_B / jnp.where(noise_B > 0, noise_B, 1.0)), 0.0)
    return samples_BW + gain_B[:, None] * noise_BW


def _babble(talkers: Talkers, lengths_B: Int[Array, " B"], seed_B: UInt[Array, " B"]) -> Float[Array, "B W"]:
    """Sum other rows at equal power, each shifted to begin before or within the recording."""
    rows, width = talkers.samples_NW.shape

    def draw(key: Array) -> tuple[Array, Array]:
        who, where = jax.random.split(key)
        return (
            jax.random.randint(who, (BABBLE_TALKERS,), 1, rows),
            jax.random.uniform(where, (BABBLE_TALKERS,)),
        )

    steps_BK, places_BK = _per_row(draw, seed_B, BABBLE_NOISE)
    own_B = talkers.first + jnp.arange(len(lengths_B))

    babble_BW = jnp.zeros((len(lengths_B), width), jnp.float32)
    for talker in range(BABBLE_TALKERS):
        others_B = (own_B + steps_BK[:, talker]) % rows
        other_BW = as_float(talkers.samples_NW[others_B])
        length_B = talkers.lengths_N[others_B]
        power_B = _energy(other_BW) / jnp.maximum(length_B, 1)
        level_B = jnp.where(power_B > 0, lax.rsqrt(jnp.where(power_B > 0, power_B, 1.0)), 0.0)
        starts_B = (places_BK[:, talker] * lengths_B).astype(jnp.int32) - length_B // 2
        babble_BW += level_B[:, None] * jax.vmap(jnp.roll)(other_BW, starts_B % width)
    return babble_BW


def _inside(samples_BW: Float[Array, "B W"], lengths_B: Int[Array, " B"]) -> Bool[Array, "B W"]:
    return jnp.arange(samples_BW.shape[1]) < lengths_B[:, None]


def _energy(samples_BW: Float[Array, "B W"]) -> Float[Array, " B"]:
    return jnp.sum(jnp.square(samples_BW), axis=1)


def _masks(
    size: int,
    true_B: Int[Array, " B"],
    share: float,
    length: int,
    seed_B: UInt[Array, " B"],
    stream: int,
) -> Bool[Array, "B size"]:
    """Draw masks of one length among the first ``true_B`` of ``size`` positions of each row."""
    most = int(share * size / length + 1)

    def draw(key: Array) -> tuple[Array, Array]:
        count, starts = jax.random.split(key)
        return jax.random.uniform(count), jax.random.uniform(starts, (most,))

    drawn_B, places_BK = _per_row(draw, seed_B, stream)
    count_B1 = jnp.floor(share * true_B / length + drawn_B)[:, None]
    starts_BK = (places_BK * jnp.maximum(true_B - length + 1, 1)[:, None]).astype(jnp.int32)
    at = jnp.arange(size)
    used_BK = jnp.arange(most) < count_B1
    covered = (at >= starts_BK[:, :, None]) & (at < starts_BK[:, :, None] + length) & used_BK[:, :, None]
    return covered.any(axis=1)
