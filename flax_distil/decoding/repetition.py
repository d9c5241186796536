"""Logits processors that discourage what was emitted before."""

import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int


def penalize_repetition(
    logits_BV: Float[Array, "B V"], tokens_BT: Int[Array, "B T"], penalty: float
) -> Float[Array, "B V"]:
    """Divide the positive logits of tokens that were emitted before by a penalty, and multiply negative ones.

    Args:
        logits_BV: Logits of the next token.
        tokens_BT: Emitted tokens; -1 where there is none.
        penalty: Above 1 discourages, below 1 encourages.

    Source: arXiv 1909.05858, section 4.1, as ``RepetitionPenaltyLogitsProcessor`` of transformers applies it.
    """
    penalized_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(_contains(tokens_BT, logits_BV.shape[1]), penalized_BV, logits_BV)


def ban_repeated_ngrams(
    logits_BV: Float[Array, "B V"], tokens_BT: Int[Array, "B T"], length_B: Int[Array, " B"], size: int
) -> Float[Array, "B V"]:
    """Set logits to minus infinity where a token would complete a run of ``size`` tokens emitted before.

    Args:
        logits_BV: Logits of the next token.
        tokens_BT: Emitted tokens; -1 where there is none.
        length_B: Number of emitted tokens.
        size: Length of a run, at least 1.

    Source: gives the same result as ``NoRepeatNGramLogitsProcessor`` of transformers.
    """
    index_T = jnp.arange(tokens_BT.shape[1])
    # The last size - 1 tokens also stand at index t: what followed them there must not follow now.
    follows_BT = (index_T + size - 1 < length_B[:, None]) & (length_B[:, None] >= size - 1)
    for offset in range(size - 1):
        last_B1 = jnp.maximum(length_B - (size - 1) + offset, 0)[:, None]
        last_B1 = jnp.take_along_axis(tokens_BT, last_B1, axis=1)
        follows_BT &= jnp.roll(tokens_BT, -offset, axis=1) == last_B1
    banned_BT = jnp.where(follows_BT, jnp.roll(tokens_BT, -(size - 1), axis=1), -1)
    return jnp.where(_contains(banned_BT, logits_BV.shape[1]), -jnp.inf, logits_BV)


def _contains(tokens_BT: Int[Array, "B T"], vocabulary: int) -> Bool[Array, "B V"]:
    """Say which tokens of the vocabulary are among those of each row; -1 stands for none."""
    rows = len(tokens_BT)
    outside_BT = jnp.where(tokens_BT < 0, vocabulary, tokens_BT)
    nothing_BV = jnp.zeros((rows, vocabulary), bool)
    return nothing_BV.at[jnp.arange(rows)[:, None], outside_BT].set(True, mode="drop")
