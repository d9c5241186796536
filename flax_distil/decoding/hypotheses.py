"""Hypotheses that share a prompt: one per row in greedy search, otherwise several beams or samples.

The cache of a row holds its prompt once, and behind it columns with one slot for each of its K hypotheses::

    | prompt, padded to P slots | column 0: k = 0 … K-1 | column 1: k = 0 … K-1 | …

A hypothesis is a *path*: which of the K slots of each column is its own. When a beam splits or dies, paths
change by one number per token, and no keys or values are moved. The price is that a query is compared with
the slots of all K hypotheses, of which it sees those on its path.

All rows write to the same column in a step, and the columns are used in turn, as a ring. So a row may begin
at any step: its tokens lie in the columns from there on, and it sees no others. Writing one column is as
cheap for rows that began at different steps as for rows that began together.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import TokenHistory
from flax_distil.decoding.types import RowSettings
from flax_distil.model.cache import DecoderCache
from flax_distil.text.special_tokens import SpecialTokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The K hypotheses of every row.

    Attributes:
        cache: P slots of the prompt, then K for each of T columns.
        history: What the logits processors know of the B·K hypotheses, row by row; its ``count`` stays once a
            hypothesis has ended.
        path_BKT: Which slot of each column is a hypothesis's own.
        tokens_BTK: The emitted tokens, by slot.
        logprobs_BTK: The log-probability of each.
        column_1: The column of the last tokens, -1 before the first.
        steps_B: Number of columns since the row began: the last ones are its own.
    """

    cache: DecoderCache
    history: TokenHistory
    path_BKT: Int[Array, "B K T"]
    tokens_BTK: Int[Array, "B T K"]
    logprobs_BTK: Float[Array, "B T K"]
    column_1: Int[Array, " 1"]
    steps_B: Int[Array, " B"]

    @classmethod
    def empty(
        cls, cache: DecoderCache, history: TokenHistory, *, count: int, columns: int, end: int
    ) -> "Hypotheses":
        """Return ``count`` hypotheses per row before the first token.

        Args:
            cache: Holds the prompts.
            history: What the logits processors know of each row.
            count: Number of hypotheses per row.
            columns: Number of columns.
            end: The token that pads them.
        """
        rows = len(history.last_B)
        history = dataclasses.replace(history, count=jnp.broadcast_to(history.count, (rows,)))
        return cls(
            cache=cache,
            history=jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), history),
            path_BKT=jnp.full((rows, count, columns), -1, jnp.int32),
            tokens_BTK=jnp.full((rows, columns, count), end, jnp.int32),
            logprobs_BTK=jnp.zeros((rows, columns, count), jnp.float32),
            column_1=jnp.full(1, -1, jnp.int32),
            steps_B=jnp.zeros(rows, jnp.int32),
        )

    @property
    def columns(self) -> int:
        """Number of columns, T."""
        return self.path_BKT.shape[2]

    @property
    def column(self) -> Int[Array, ""]:
        """The column of the last tokens."""
        return self.column_1[0]

    @property
    def count_BK(self) -> Int[Array, "B K"]:
        """Number of tokens of each hypothesis, end-of-text included."""
        return self.history.count.reshape(self.path_BKT.shape[:2])

    @property
    def own_BT(self) -> Bool[Array, "B T"]:
        """Which columns hold tokens of the row."""
        return (self.column - jnp.arange(self.columns)) % self.columns < self.steps_B[:, None]

    def append(
        self,
        token_BK: Int[Array, "B K"],
        logprob_BK: Float[Array, "B K"],
        special: SpecialTokens,
        *,
        done_BK: Bool[Array, "B K"],
        parent_BK: Int[Array, "B K"] | None = None,
    ) -> "Hypotheses":
        """Return the hypotheses with one more token each, whose keys and values are not in the cache yet.

        Args:
            token_BK: The tokens.
            logprob_BK: Their log-probabilities.
            special: Ids of the vocabulary.
            done_BK: Hypotheses that had ended, whose tokens do not count.
            parent_BK: Which hypothesis each one continues; by default itself.
        """
        column, path_BKT, history = (self.column + 1) % self.columns, self.path_BKT, self.history
        if parent_BK is not None:
            path_BKT = jnp.take_along_axis(path_BKT, parent_BK[:, :, None], axis=1)
            history = _gather_parents(history, parent_BK)
        own_K = jnp.arange(token_BK.shape[1])
        grown = history.append(token_BK.reshape(-1), special)
        return Hypotheses(
            cache=self.cache,
            history=dataclasses.replace(
                grown, count=jnp.where(done_BK.reshape(-1), history.count, grown.count)
            ),
            path_BKT=path_BKT.at[:, :, column].set(own_K),
            tokens_BTK=self.tokens_BTK.at[:, column].set(token_BK),
            logprobs_BTK=self.logprobs_BTK.at[:, column].set(logprob_BK),
            column_1=column[None],
            steps_B=self.steps_B + 1,
        )

    def in_order(
        self, end: int, max_new_tokens: int
    ) -> tuple[Int[Array, "B W K"], Float[Array, "B W K"], Int[Array, "B W"]]:
        """Return tokens and log-probabilities by slot in the order of each row, and the column of each.

        Args:
            end: The token that pads them; log-probabilities are padded with 0.
            max_new_tokens: Number W of tokens to return.
        """
        index_W = jnp.arange(max_new_tokens)
        column_BW = ((self.column + 1 - self.steps_B)[:, None] + index_W) % self.columns
        is_inside_BW1 = (index_W < self.steps_B[:, None])[:, :, None]
        tokens_BWK, logprobs_BWK = (
            jnp.take_along_axis(by_column, column_BW[:, :, None], axis=1)
            for by_column in (self.tokens_BTK, self.logprobs_BTK)
        )
        tokens_BWK = jnp.where(is_inside_BW1, tokens_BWK, end)
        return tokens_BWK, jnp.where(is_inside_BW1, logprobs_BWK, 0.0), column_BW

    def resized(self, columns: int) -> "Hypotheses":
        """Return the same hypotheses with this many columns.

        The last tokens then lie in the last of the present columns, or of the remaining ones.
        """
        count = self.path_BKT.shape[1]
        prompt_slots = self.cache.slots - count * self.columns
        turn = functools.partial(self.turned, columns=columns)

        def turn_slots(slots_BNCH: Array) -> Array:
            kept, ring = slots_BNCH[:, :, :prompt_slots], slots_BNCH[:, :, prompt_slots:]
            by_column = ring.reshape(*ring.shape[:2], self.columns, count, ring.shape[3])
            turned = turn(by_column, axis=2)
            return jnp.concatenate([kept, turned.reshape(*ring.shape[:2], -1, ring.shape[3])], axis=2)

        keys, values = jax.tree.map(turn_slots, (self.cache.self_keys, self.cache.self_values))
        return dataclasses.replace(
            self,
            cache=DecoderCache(keys, values, self.cache.encoder_out_BSD),
            path_BKT=turn(self.path_BKT, axis=2),
            tokens_BTK=turn(self.tokens_BTK, axis=1),
            logprobs_BTK=turn(self.logprobs_BTK, axis=1),
            column_1=jnp.full(1, min(columns, self.columns) - 1, jnp.int32),
        )

    def turned(self, values: Array, *, axis: int, columns: int) -> Array:
        """Return values by column as they lie in :meth:`resized`."""
        present = self.columns
        turned = jnp.roll(values, present - 1 - self.column, axis=axis)
        if columns <= present:
            return jax.lax.slice_in_dim(turned, present - columns, present, axis=axis)
        more = [(0, 0)] * values.ndim
        more[axis] = (0, columns - present)
        return jnp.pad(turned, more)

    def beginning_at(self, column: Int[Array, ""], columns: int) -> "Hypotheses":
        """Return hypotheses of one token, which is in the first column, with it in another of them."""

        def move(by_column: Array, axis: int) -> Array:
            more = [(0, 0)] * 3
            more[axis] = (0, columns - self.columns)
            return jnp.roll(jnp.pad(by_column, more), column, axis=axis)

        return dataclasses.replace(
            self,
            path_BKT=move(self.path_BKT, 2),
            tokens_BTK=move(self.tokens_BTK, 1),
            logprobs_BTK=move(self.logprobs_BTK, 1),
            column_1=column[None],
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
    """What the decode loop carries from step to step; beam search adds to it.

    Attributes:
        hypotheses: The hypotheses of every row.
        done: Which rows or hypotheses have ended.
        rows: What each row is decoded with.
        no_speech_prob_B: Probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
    """

    hypotheses: Hypotheses
    done: Bool[Array, "..."]
    rows: RowSettings
    no_speech_prob_B: Float[Array, " B"]

    def resized(self, columns: int) -> "Any":
        """Return the same state with this many columns; see ``Hypotheses.resized``."""
        return dataclasses.replace(self, hypotheses=self.hypotheses.resized(columns))


def _gather_parents(history: TokenHistory, parent_BK: Int[Array, "B K"]) -> TokenHistory:
    """Return the histories of the parents; all hypotheses of a row have emitted the same number of tokens."""

    def gather(flat: Array) -> Array:
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
