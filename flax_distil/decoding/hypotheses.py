"""Hypotheses that share a prompt: one per row in greedy search, otherwise several beams or samples.

The cache of a row holds its prompt once, and behind it, for every emitted token, one slot for each of its
K hypotheses::

    | prompt, padded to P slots | token 0: k = 0 … K-1 | token 1: k = 0 … K-1 | …

A hypothesis is a *path*: which of the K slots holds its token 0, its token 1, and so on. When a beam splits
or dies, paths change by one number per token, and no keys or values are moved. The price is that a query is
compared with the slots of all K hypotheses, of which it sees those on its path.
"""

import dataclasses

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import TokenHistory
from flax_distil.model.cache import DecoderCache
from flax_distil.text.special_tokens import SpecialTokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The K hypotheses of every row.

    Attributes:
        cache: P slots of the prompt, then K for each token.
        history: What the logits processors know of the B·K hypotheses, row by row.
        path_BKT: Which of the K slots holds each token of a hypothesis; -1 where there is none yet.
        tokens_BTK: The emitted tokens, by slot.
        logprobs_BTK: The log-probability of each.
    """

    cache: DecoderCache
    history: TokenHistory
    path_BKT: Int[Array, "B K T"]
    tokens_BTK: Int[Array, "B T K"]
    logprobs_BTK: Float[Array, "B T K"]

    @classmethod
    def empty(
        cls, cache: DecoderCache, history: TokenHistory, *, count: int, max_new_tokens: int, end: int
    ) -> "Hypotheses":
        """Return ``count`` hypotheses per row before the first token.

        Args:
            cache: Holds the prompts.
            history: What the logits processors know of each row.
            count: Number of hypotheses per row.
            max_new_tokens: Maximum number of tokens.
            end: The token that pads them.
        """
        rows = len(history.last_B)
        return cls(
            cache=cache,
            history=jax.tree.map(
                lambda leaf: jnp.repeat(leaf, count, axis=0) if leaf.ndim else leaf, history
            ),
            path_BKT=jnp.full((rows, count, max_new_tokens), -1, jnp.int32),
            tokens_BTK=jnp.full((rows, max_new_tokens, count), end, jnp.int32),
            logprobs_BTK=jnp.zeros((rows, max_new_tokens, count), jnp.float32),
        )

    def append(
        self,
        token_BK: Int[Array, "B K"],
        logprob_BK: Float[Array, "B K"],
        special: SpecialTokens,
        *,
        parent_BK: Int[Array, "B K"] | None = None,
    ) -> "Hypotheses":
        """Return the hypotheses with one more token each, whose keys and values are not in the cache yet.

        Args:
            token_BK: The tokens.
            logprob_BK: Their log-probabilities.
            special: Ids of the vocabulary.
            parent_BK: Which hypothesis each one continues; by default itself.
        """
        column, path_BKT, history = self.history.count, self.path_BKT, self.history
        if parent_BK is not None:
            path_BKT = jnp.take_along_axis(path_BKT, parent_BK[:, :, None], axis=1)
            history = _gather_parents(history, parent_BK)
        own_K = jnp.arange(token_BK.shape[1])
        return Hypotheses(
            cache=self.cache,
            history=history.append(token_BK.reshape(-1), special),
            path_BKT=path_BKT.at[:, :, column].set(own_K),
            tokens_BTK=self.tokens_BTK.at[:, column].set(token_BK),
            logprobs_BTK=self.logprobs_BTK.at[:, column].set(logprob_BK),
        )

    def follow_path(
        self, path_BT: Int[Array, "B T"], length_B: Int[Array, " B"], end: int
    ) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
        """Return the tokens and log-probabilities along a path of each row, padded with ``end`` and 0."""

        def pick(slots_BTK: Array) -> Array:
            return jnp.take_along_axis(slots_BTK, jnp.maximum(path_BT, 0)[:, :, None], axis=2)[:, :, 0]

        is_inside_BT = jnp.arange(path_BT.shape[1]) < length_B[:, None]
        tokens_BT = jnp.where(is_inside_BT, pick(self.tokens_BTK), end)
        return tokens_BT, jnp.where(is_inside_BT, pick(self.logprobs_BTK), 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
    """What the decode loop carries from step to step; beam search adds to it.

    Attributes:
        hypotheses: The hypotheses of every row.
        done: Which rows or hypotheses have ended.
    """

    hypotheses: Hypotheses
    done: Bool[Array, "..."]


def _gather_parents(history: TokenHistory, parent_BK: Int[Array, "B K"]) -> TokenHistory:
    """Return the histories of the parents; all hypotheses have emitted the same number of tokens."""

    def gather(flat: Array) -> Array:
        if not flat.ndim:
            return flat
        rest = flat.shape[1:]
        index = parent_BK.reshape(*parent_BK.shape, *[1] * len(rest))
        return jnp.take_along_axis(flat.reshape(*parent_BK.shape, *rest), index, axis=1).reshape(-1, *rest)

    return jax.tree.map(gather, history)


def rank_scores(
    total: Float[Array, "..."], length: Int[Array, "..."], length_penalty: float | None
) -> Float[Array, "..."]:
    """Return what hypotheses are ranked by: log-probability over length, or over a length penalty.

    Args:
        total: Sums of log-probabilities.
        length: Numbers of tokens, without end-of-text.
        length_penalty: See ``SearchOptions``.

    Source: ``MaximumLikelihoodRanker`` of openai/whisper; arXiv 1609.08144, section 7.
    """
    if length_penalty is None:
        return total / jnp.maximum(length, 1)
    return total / ((5.0 + length) / 6.0) ** length_penalty
