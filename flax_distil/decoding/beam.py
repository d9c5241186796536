"""Beam search in batches, with the same choices as openai/whisper."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.hypotheses import Hypotheses, SamplingState, rank_scores
from flax_distil.decoding.logits_processors import LogitsProcessors, process_logits
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import top_k
from flax_distil.decoding.types import GenerateOutput, RowSettings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Finished:
    """Up to E hypotheses of every row that have ended, in the order in which they did.

    Attributes:
        count_B: How many there are.
        path_BET: Their paths through the slots; see ``Hypotheses``.
        length_BE: Numbers of tokens, without end-of-text.
        total_BE: Sums of log-probabilities, that of end-of-text included.
        end_BE: Log-probability of end-of-text.
    """

    count_B: Int[Array, " B"]
    path_BET: Int[Array, "B E T"]
    length_BE: Int[Array, "B E"]
    total_BE: Float[Array, "B E"]
    end_BE: Float[Array, "B E"]

    @classmethod
    def none(cls, rows: int, most: int, tokens: int) -> "_Finished":
        zeros = jnp.zeros((rows, most), jnp.float32)
        return cls(
            jnp.zeros(rows, jnp.int32),
            jnp.full((rows, most, tokens), -1, jnp.int32),
            jnp.zeros((rows, most), jnp.int32),
            zeros,
            zeros,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Beams(SamplingState):
    """State of the search; ``done`` is one value per row.

    Attributes:
        total_BK: Sums of log-probabilities, the best first.
        length_B: Number of tokens of the beams.
        finished: The hypotheses that have ended.
    """

    total_BK: Float[Array, "B K"]
    length_B: Int[Array, " B"]
    finished: _Finished

    def resized(self, columns: int) -> "_Beams":
        """See ``SamplingState.resized``."""
        resized: _Beams = super().resized(columns)
        path_BET = self.hypotheses.turned(self.finished.path_BET, axis=2, columns=columns)
        return dataclasses.replace(resized, finished=dataclasses.replace(self.finished, path_BET=path_BET))


class _Candidates(NamedTuple):
    """Continuations of the beams, the best first."""

    parent_BM: Int[Array, "B M"]
    token_BM: Int[Array, "B M"]
    logprob_BM: Float[Array, "B M"]
    total_BM: Float[Array, "B M"]

    def take(self, index_BX: Int[Array, "B X"]) -> "_Candidates":
        return _Candidates(*(jnp.take_along_axis(values, index_BX, axis=1) for values in self))


class BeamSearch:
    """Keeps the ``num_beams`` most likely hypotheses of every row until enough have ended; returns the best.

    In each step every beam proposes its ``num_beams + 1`` most likely tokens. Of all proposals, from the most
    likely down, those that end are put aside, until ``num_beams`` that go on are found: the next beams. A row
    is done when ``round(num_beams * patience)`` have ended. If fewer than ``num_beams`` have ended by the
    row's limit, the most likely beams count as they are. :func:`rank_scores` says which one is the best.

    Attributes:
        num_hypotheses: Number of beams.

    Source: ``BeamSearchDecoder`` of openai/whisper; arXiv 2204.05424 (patience).
    """

    def __init__(self, processors: LogitsProcessors, options: SearchOptions):
        """Keep the settings; arguments as those of ``GreedyOrSample``."""
        self._processors, self._options = processors, options
        self.num_hypotheses = options.num_beams

    def start(
        self, hypotheses: Hypotheses, rows: RowSettings, no_speech_prob_B: Float[Array, " B"]
    ) -> _Beams:
        """Return the state before the first token."""
        count, beams, columns = hypotheses.path_BKT.shape
        return _Beams(
            hypotheses=hypotheses,
            done=rows.limit_B < 1,
            rows=rows,
            no_speech_prob_B=no_speech_prob_B,
            total_BK=jnp.zeros((count, beams), jnp.float32),
            length_B=jnp.zeros(count, jnp.int32),
            finished=_Finished.none(count, self._options.waits_for, columns),
        )

    def update(self, state: _Beams, logits: Float[Array, "B V"] | Float[Array, "B K V"]) -> _Beams:
        """Choose the next beams; before the first token all beams of a row are one."""
        is_first, beams = logits.ndim == 2, self.num_hypotheses
        history = state.hypotheses.history
        if is_first:
            history = jax.tree.map(lambda leaf: leaf[::beams], history)
        logits_QV = process_logits(self._processors, logits.reshape(-1, logits.shape[-1]), history)
        candidates = _candidates(logits_QV, state.total_BK[:, : 1 if is_first else beams], beams)
        ends_BM = candidates.token_BM == self._processors.special.eot
        order_BM = jnp.argsort(ends_BM, axis=1, stable=True)
        chosen = candidates.take(order_BM[:, :beams])
        # An end counts where fewer than all beams were found before it.
        counts_BM = ends_BM & (jnp.cumsum(~ends_BM, axis=1) < beams)
        was_done_B1 = state.done[:, None]
        finished = _add_ended(state, candidates, counts_BM & ~was_done_B1)
        parent_BK = jnp.where(was_done_B1, jnp.arange(beams), chosen.parent_BM)
        has_enough_B = finished.count_B >= self._options.waits_for
        return _Beams(
            hypotheses=state.hypotheses.append(
                chosen.token_BM,
                chosen.logprob_BM,
                self._processors.special,
                done_BK=jnp.broadcast_to(was_done_B1, parent_BK.shape),
                parent_BK=parent_BK,
            ),
            done=state.done | has_enough_B | (state.length_B + 1 >= state.rows.limit_B),
            rows=state.rows,
            no_speech_prob_B=state.no_speech_prob_B,
            total_BK=jnp.where(was_done_B1, state.total_BK, chosen.total_BM),
            length_B=state.length_B + ~state.done,
            finished=finished,
        )

    def finalize(self, state: _Beams, max_new_tokens: int) -> GenerateOutput:
        """Rank what has ended, and as many unfinished beams as are missing; return the best of every row."""
        finished, beams = state.finished, self.num_hypotheses
        most = finished.total_BE.shape[1]
        length_BK = jnp.broadcast_to(state.length_B[:, None], state.total_BK.shape)
        missing_B1 = beams - finished.count_B[:, None]
        is_there = jnp.concatenate(
            [jnp.arange(most) < finished.count_B[:, None], jnp.arange(beams) < missing_B1], axis=1
        )
        total = jnp.concatenate([finished.total_BE, state.total_BK], axis=1)
        length = jnp.concatenate([finished.length_BE, length_BK], axis=1)
        path = jnp.concatenate([finished.path_BET, state.hypotheses.path_BKT], axis=1)
        rank = jnp.where(is_there, rank_scores(total, length, self._options.length_penalty), -jnp.inf)
        best_B1 = rank.argmax(axis=1, keepdims=True)
        length_B = jnp.take_along_axis(length, best_B1, axis=1)[:, 0]
        path_BT = jnp.take_along_axis(path, best_B1[:, :, None], axis=1)[:, 0]
        tokens_BT, logprobs_BT = _follow_path(
            state.hypotheses, path_BT, length_B, self._processors.special.eot, max_new_tokens
        )
        end_B1 = jnp.take_along_axis(finished.end_BE, jnp.minimum(best_B1, most - 1), axis=1)
        is_end_BT = (jnp.arange(tokens_BT.shape[1]) == length_B[:, None]) & (best_B1 < most)
        return GenerateOutput(
            tokens_BT=tokens_BT,
            logprobs_BT=jnp.where(is_end_BT, end_B1, logprobs_BT),
            length_B=length_B,
            avg_logprob_B=jnp.take_along_axis(total, best_B1, axis=1)[:, 0] / (length_B + 1),
            no_speech_prob_B=state.no_speech_prob_B,
        )


def _candidates(logits_QV: Float[Array, "Q V"], total_BJ: Float[Array, "B J"], beams: int) -> _Candidates:
    """Return the most likely continuations: ``beams`` that do not end, and all that end before those."""
    rows = len(total_BJ)
    logit_QX, token_QX = top_k(logits_QV, beams + 1)
    logprob_QX = logit_QX - jax.nn.logsumexp(logits_QV, axis=1, keepdims=True)
    total_BM = (total_BJ.reshape(-1, 1) + logprob_QX).reshape(rows, -1)
    # At most one continuation of each beam ends.
    total_BM, index_BM = jax.lax.top_k(total_BM, min(2 * beams, total_BM.shape[1]))

    def pick(values_QX: Array) -> Array:
        return jnp.take_along_axis(values_QX.reshape(rows, -1), index_BM, axis=1)

    return _Candidates(index_BM // (beams + 1), pick(token_QX), pick(logprob_QX), total_BM)


def _follow_path(
    hypotheses: Hypotheses,
    path_BT: Int[Array, "B T"],
    length_B: Int[Array, " B"],
    end: int,
    max_new_tokens: int,
) -> tuple[Int[Array, "B W"], Float[Array, "B W"]]:
    """Return the tokens and log-probabilities along a path of each row, padded with ``end`` and 0."""
    tokens_BWK, logprobs_BWK, column_BW = hypotheses.in_order(end, max_new_tokens)
    slot_BW1 = jnp.maximum(jnp.take_along_axis(path_BT, column_BW, axis=1), 0)[:, :, None]
    is_inside_BW = jnp.arange(max_new_tokens) < length_B[:, None]
    tokens_BW, logprobs_BW = (
        jnp.take_along_axis(by_slot, slot_BW1, axis=2)[:, :, 0] for by_slot in (tokens_BWK, logprobs_BWK)
    )
    return jnp.where(is_inside_BW, tokens_BW, end), jnp.where(is_inside_BW, logprobs_BW, 0.0)


def _add_ended(state: _Beams, candidates: _Candidates, ended_BM: Bool[Array, "B M"]) -> _Finished:
    """Put hypotheses that have just ended behind those that had, as far as there is room."""
    finished = state.finished
    most = finished.total_BE.shape[1]
    rank_BE = jnp.arange(most) - finished.count_B[:, None]
    new_B = ended_BM.sum(axis=1)
    is_new_BE = (rank_BE >= 0) & (rank_BE < new_B[:, None])
    ended_first_BM = jnp.argsort(~ended_BM, axis=1, stable=True)
    source_BE = jnp.clip(rank_BE, 0, ended_BM.shape[1] - 1)
    ended = candidates.take(jnp.take_along_axis(ended_first_BM, source_BE, axis=1))
    path_BET = jnp.take_along_axis(state.hypotheses.path_BKT, ended.parent_BM[:, :, None], axis=1)
    return _Finished(
        count_B=jnp.minimum(finished.count_B + new_B, most),
        path_BET=jnp.where(is_new_BE[:, :, None], path_BET, finished.path_BET),
        length_BE=jnp.where(is_new_BE, state.length_B[:, None], finished.length_BE),
        total_BE=jnp.where(is_new_BE, ended.total_BM, finished.total_BE),
        end_BE=jnp.where(is_new_BE, ended.logprob_BM, finished.end_BE),
    )
