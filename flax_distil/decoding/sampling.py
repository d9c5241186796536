"""Sampling tokens: temperature, top-k and top-p, with random numbers that belong to one row alone."""

import dataclasses

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.options import SearchOptions

_GROUP = 128


def warp_logits(
    logits_BV: Float[Array, "B V"], temperature_B: Float[Array, " B"], options: SearchOptions
) -> Float[Array, "B V"]:
    """Return the logits to sample from: divided by the temperature, then top-k of them, then top-p of those.

    Args:
        logits_BV: Logits after the logits processors.
        temperature_B: Temperature of each row, above 0.
        options: ``top_k`` and ``top_p``.

    Source: arXiv 1904.09751, section 3.1; in the order of the logits warpers of transformers.
    """
    logits_BV = logits_BV / temperature_B[:, None]
    vocabulary = logits_BV.shape[1]
    if options.top_k is not None and options.top_k < vocabulary:
        least_B1 = top_k(logits_BV, options.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    if options.top_p is not None and options.top_p < 1:
        # Top-k has cut what is last in the order, so no more than the top k need sorting (except for ties).
        count = min(options.top_k or vocabulary, vocabulary)
        ordered_BK = top_k(logits_BV, count)[0]
        probability_BK = jax.nn.softmax(ordered_BK)
        before_BK = jnp.cumsum(probability_BK, axis=1) - probability_BK
        kept_BK = (before_BK < options.top_p).at[:, 0].set(True)
        least_B1 = jnp.where(kept_BK, ordered_BK, jnp.inf).min(axis=1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return logits_BV


def sample_tokens(
    logits_BV: Float[Array, "B V"],
    temperature_B: Float[Array, " B"],
    seed_B: Int[Array, " B"],
    sample_B: Int[Array, " B"],
    count_B: Int[Array, " B"],
    options: SearchOptions,
) -> Int[Array, " B"]:
    """Sample a token of every row; rows at temperature 0 take the most likely one.

    The result depends on the row's logits, its seed, its sample number and how many tokens it has. It never
    depends on other rows, on how many there are, or on which device they lie.

    Args:
        logits_BV: Logits after the logits processors.
        temperature_B: Temperature of each row, 0 or above.
        seed_B: Random seed of each row.
        sample_B: Number of the sample among those of its row.
        count_B: Number of tokens of each row before this one.
        options: ``top_k`` and ``top_p``.
    """
    is_sampled_B = temperature_B > 0
    warped_BV = warp_logits(logits_BV, jnp.where(is_sampled_B, temperature_B, 1.0), options)

    def sample(logits_V: Array, seed: Array, sample: Array, count: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), sample), count)
        return jax.random.categorical(key, logits_V)

    sampled_B = jax.vmap(sample)(warped_BV, seed_B, sample_B, count_B)
    return jnp.where(is_sampled_B, sampled_B, logits_BV.argmax(axis=1)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How speculative decoding samples; a row does not depend on the other rows.

    Attributes:
        temperature_B: Temperature of each row; 0 takes the most likely token.
        seed_B: A random number depends on this, on the index of the token in its row, and on its use.
        options: ``top_k`` and ``top_p``.
    """

    temperature_B: Float[Array, " B"]
    seed_B: Int[Array, " B"]
    options: SearchOptions

    def log_probabilities(self, logits_BV: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Return the natural logarithm of the probabilities to sample from."""
        is_sampled_B = self.temperature_B > 0
        is_best_BV = jnp.arange(logits_BV.shape[1]) == logits_BV.argmax(axis=1)[:, None]
        certain_BV = jnp.where(is_best_BV, 0.0, -jnp.inf)
        warped_BV = warp_logits(logits_BV, jnp.where(is_sampled_B, self.temperature_B, 1.0), self.options)
        return jnp.where(is_sampled_B[:, None], jax.nn.log_softmax(warped_BV), certain_BV)

    def sample(
        self, log_probability_BV: Float[Array, "B V"], count_B: Int[Array, " B"], use: int
    ) -> Int[Array, " B"]:
        """Sample a token of every row, which has ``count_B`` tokens before it."""
        sampled_B = jax.vmap(jax.random.categorical)(self._keys(count_B, use), log_probability_BV)
        return sampled_B.astype(jnp.int32)

    def log_uniform(self, count_B: Int[Array, " B"], use: int) -> Float[Array, " B"]:
        """Return the logarithm of a random number between 0 and 1 for every row."""
        return jnp.log(jax.vmap(jax.random.uniform)(self._keys(count_B, use)))

    def _keys(self, count_B: Int[Array, " B"], use: int) -> Array:
        def key(seed: Array, count: Array) -> Array:
            return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), use)

        return jax.vmap(key)(self.seed_B, count_B)


def top_k(scores_BV: Float[Array, "B V"], count: int) -> tuple[Float[Array, "B X"], Int[Array, "B X"]]:
    """Return the ``count`` highest scores of each row and their tokens, as ``jax.lax.top_k`` does.

    The highest scores are in the groups of 128 tokens with the highest maxima, so only those are ordered.
    Otherwise a TPU would sort the whole vocabulary, which costs more than the rest of a decoding step.
    """
    rows, vocabulary = scores_BV.shape
    groups = -(-vocabulary // _GROUP)
    if count >= min(groups, _GROUP):
        best_BX, token_BX = jax.lax.top_k(scores_BV, count)
        return best_BX, token_BX
    padding = (0, 0), (0, groups * _GROUP - vocabulary)
    padded_BV = jnp.pad(scores_BV, padding, constant_values=-jnp.inf)
    grouped = padded_BV.reshape(rows, groups, _GROUP)
    group_BX = jnp.sort(jax.lax.top_k(grouped.max(axis=2), count)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, group_BX[:, :, None], axis=1).reshape(rows, -1)
    best_BX, place_BX = jax.lax.top_k(candidates, count)
    return best_BX, jnp.take_along_axis(group_BX, place_BX // _GROUP, axis=1) * _GROUP + place_BX % _GROUP
