"""What was said before is less likely to be said again: logits by the tokens emitted so far."""

import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int


def penalize_repetition(
    logits_BV: Float[Array, "B V"], tokens_BT: Int[Array, "B T"], penalty: float
) -> Float[Array, "B V"]:
    """Divide the positive logits of tokens emitted before by a penalty, and multiply the negative ones.

    Args:
        logits_BV: of the next token.
        tokens_BT: emitted tokens, -1 where there is none.
        penalty: static; above 1 discourages, below 1 encourages.

    Source: arXiv 1909.05858, section 4.1, as transformers' ``RepetitionPenaltyLogitsProcessor`` applies it.
    """
    penalised_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(_contains(tokens_BT, logits_BV.shape[1]), penalised_BV, logits_BV)


def ban_repeated_ngrams(
    logits_BV: Float[Array, "B V"], tokens_BT: Int[Array, "B T"], length_B: Int[Array, " B"], size: int
) -> Float[Array, "B V"]:
    """Set to minus infinity what would end a run of ``size`` tokens that was emitted before.

    Args:
        logits_BV: of the next token.
        tokens_BT: emitted tokens, -1 where there is none.
        length_B: how many there are.
        size: static; at least 1.

    Source: the same result as transformers' ``NoRepeatNGramLogitsProcessor``.
    """
    place_T = jnp.arange(tokens_BT.shape[1])
    # A run of the same tokens as the last size - 1 is behind place t; what follows it must not follow now.
    follows_BT = (place_T + size - 1 < length_B[:, None]) & (length_B[:, None] >= size - 1)
    for offset in range(size - 1):
        last_B1 = jnp.maximum(length_B - (size - 1) + offset, 0)[:, None]
        last_B1 = jnp.take_along_axis(tokens_BT, last_B1, axis=1)
        follows_BT &= jnp.roll(tokens_BT, -offset, axis=1) == last_B1
    banned_BT = jnp.where(follows_BT, jnp.roll(tokens_BT, -(size - 1), axis=1), -1)
    return jnp.where(_contains(banned_BT, logits_BV.shape[1]), -jnp.inf, logits_BV)


def _contains(tokens_BT: Int[Array, "B T"], vocabulary: int) -> Bool[Array, "B V"]:
    """Say which tokens of the vocabulary are among those of each row; -1 is none."""
    rows = len(tokens_BT)
    outside_BT = jnp.where(tokens_BT < 0, vocabulary, tokens_BT)
    nothing_BV = jnp.zeros((rows, vocabulary), bool)
    return nothing_BV.at[jnp.arange(rows)[:, None], outside_BT].set(True, mode="drop")
