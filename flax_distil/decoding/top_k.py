"""The few likeliest of many tokens."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int

_GROUP = 128


def top_k(scores_BV: Float[Array, "B V"], count: int) -> tuple[Float[Array, "B X"], Int[Array, "B X"]]:
    """Return the ``count`` highest scores of each row and their tokens, ties in the order of ids.

    What ``jax.lax.top_k`` returns.

    The highest are in the groups of 128 with the highest maxima, so no more than those are ordered. A TPU
    would sort the whole vocabulary instead, which costs more than the rest of a decoding step.
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
