"""Drawing tokens: temperature, top-k and top-p, with randomness that belongs to a row alone."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.top_k import top_k


def warp_logits(
    scores_BV: Float[Array, "B V"], temperature_B: Float[Array, " B"], options: SearchOptions
) -> Float[Array, "B V"]:
    """Return the logits that are drawn from: over the temperature, top-k kept of them, then top-p of those.

    Args:
        scores_BV: logits after the processors.
        temperature_B: above 0.
        options: ``top_k`` and ``top_p``.

    Source: arXiv 1904.09751, section 3.1; the order is that of transformers.
    """
    scores_BV = scores_BV / temperature_B[:, None]
    vocabulary = scores_BV.shape[1]
    if options.top_k is not None and options.top_k < vocabulary:
        least_B1 = top_k(scores_BV, options.top_k)[0][:, -1:]
        scores_BV = jnp.where(scores_BV < least_B1, -jnp.inf, scores_BV)
    if options.top_p is not None and options.top_p < 1:
        # What was cut is at the end of the order: no more than the likeliest need sorting (ties aside).
        likeliest = min(options.top_k or vocabulary, vocabulary)
        ordered_BK = top_k(scores_BV, likeliest)[0]
        probability_BK = jax.nn.softmax(ordered_BK)
        before_BK = jnp.cumsum(probability_BK, axis=1) - probability_BK
        kept_BK = (before_BK < options.top_p).at[:, 0].set(True)
        least_B1 = jnp.where(kept_BK, ordered_BK, jnp.inf).min(axis=1, keepdims=True)
        scores_BV = jnp.where(scores_BV < least_B1, -jnp.inf, scores_BV)
    return scores_BV


def sample_tokens(
    scores_BV: Float[Array, "B V"],
    temperature_B: Float[Array, " B"],
    seed_B: Int[Array, " B"],
    sample_B: Int[Array, " B"],
    count: Int[Array, ""],
    options: SearchOptions,
) -> Int[Array, " B"]:
    """Draw a token of every row; rows at temperature 0 take the likeliest.

    A draw depends on its row's scores, its seed, its sample and its place: never on other rows, on how
    many there are or on which device they lie.

    Args:
        scores_BV: logits after the processors.
        temperature_B: 0 or above.
        seed_B: of the rows.
        sample_B: number of the sample among those of its row.
        count: tokens before this one.
        options: ``top_k`` and ``top_p``.
    """
    is_drawn_B = temperature_B > 0
    warped_BV = warp_logits(scores_BV, jnp.where(is_drawn_B, temperature_B, 1.0), options)

    def draw(scores_V: Array, seed: Array, sample: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), sample), count)
        return jax.random.categorical(key, scores_V)

    drawn_B = jax.vmap(draw)(warped_BV, seed_B, sample_B)
    return jnp.where(is_drawn_B, drawn_B, scores_BV.argmax(axis=1)).astype(jnp.int32)
