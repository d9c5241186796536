"""Batched beam search, with the choices of openai/whisper's made one by one."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import LogitsProcessors, process_logits
from flax_distil.decoding.loop import DecodeLoop, SamplingState, rank_scores
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.result import GenerateOutput
from flax_distil.decoding.top_k import top_k


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Finished:
    """Up to E sequences of every row that have ended, in the order in which they did.

    Attributes:
        count_B: how many there are.
        path_BET: their ways through the slots; see ``Hypotheses``.
        length_BE: tokens, end-of-text left out.
        total_BE: sums of log-probabilities, that of end-of-text included.
        end_BE: log-probability of end-of-text.
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
        total_BK: sums of log-probabilities, the best first.
        length_B: tokens of the beams.
        finished: what has ended.
    """

    total_BK: Float[Array, "B K"]
    length_B: Int[Array, " B"]
    finished: _Finished


class _Candidates(NamedTuple):
    """Continuations of the beams, the best first."""

    parent_BM: Int[Array, "B M"]
    token_BM: Int[Array, "B M"]
    logprob_BM: Float[Array, "B M"]
    total_BM: Float[Array, "B M"]

    def take(self, index_BX: Int[Array, "B X"]) -> "_Candidates":
        return _Candidates(*(jnp.take_along_axis(values, index_BX, axis=1) for values in self))


def beam_search(
    decoder: DecodeLoop, processors: LogitsProcessors, options: SearchOptions, *, max_new_tokens: int
) -> GenerateOutput:
    """Keep the ``num_beams`` likeliest sequences of every row until enough have ended; return the best.

    In each step every beam proposes its ``num_beams + 1`` likeliest tokens. Of all proposals, from the
    likeliest down, those that end are put aside, until ``num_beams`` that go on are found: the next
    beams. A row is done when ``round(num_beams * patience)`` have ended. If by its limit fewer than
    ``num_beams`` have, the likeliest beams count as they are. The best is that of :func:`rank_scores`.

    Args:
        decoder: of ``options.num_beams`` sequences per row.
        processors: static.
        options: static.
        max_new_tokens: static.

    Source: openai/whisper's beam search; arXiv 2204.05424 (patience).
    """
    rows, beams = len(decoder.limit_B), options.num_beams
    end = processors.special.eot

    def choose(state: _Beams, logits_BJV: Float[Array, "B J V"]) -> _Beams:
        """Choose the next beams; all beams are one, J = 1, in the first step."""
        sources, column = logits_BJV.shape[1], state.hypotheses.history.count
        logits_QV = logits_BJV.reshape(rows * sources, -1)
        history = decoder.first_history if sources == 1 else state.hypotheses.history
        scores_QV = process_logits(processors, logits_QV, history)
        candidates = _candidates(scores_QV, state.total_BK[:, :sources], beams)
        ends_BM = candidates.token_BM == end
        order_BM = jnp.argsort(ends_BM, axis=1, stable=True)
        chosen = candidates.take(order_BM[:, :beams])
        # An end counts where fewer than all beams were found before it.
        counts_BM = ends_BM & (jnp.cumsum(~ends_BM, axis=1) < beams)
        was_done_B1 = state.done[:, None]
        finished = _with_ended(state, candidates, counts_BM & ~was_done_B1, column)
        parent_BK = jnp.where(was_done_B1, jnp.arange(beams), chosen.parent_BM)
        return _Beams(
            hypotheses=state.hypotheses.followed_by(
                chosen.token_BM, chosen.logprob_BM, processors.special, parent_BK=parent_BK
            ),
            done=state.done | (finished.count_B >= options.waits_for) | (column + 1 >= decoder.limit_B),
            total_BK=jnp.where(was_done_B1, state.total_BK, chosen.total_BM),
            length_B=state.length_B + ~state.done,
            finished=finished,
        )

    start = _Beams(
        hypotheses=decoder.first,
        done=decoder.limit_B < 1,
        total_BK=jnp.zeros((rows, beams), jnp.float32),
        length_B=jnp.zeros(rows, jnp.int32),
        finished=_Finished.none(rows, options.waits_for, max_new_tokens),
    )
    final = decoder.run(choose(start, decoder.first_logits_BV[:, None]), choose)
    return _best(final, decoder, options, end)


def _candidates(scores_QV: Float[Array, "Q V"], total_BJ: Float[Array, "B J"], beams: int) -> _Candidates:
    """Return the likeliest continuations: all that end before ``beams`` that do not, and those."""
    rows = len(total_BJ)
    score_QX, token_QX = top_k(scores_QV, beams + 1)
    logprob_QX = score_QX - jax.nn.logsumexp(scores_QV, axis=1, keepdims=True)
    total_BM = (total_BJ.reshape(-1, 1) + logprob_QX).reshape(rows, -1)
    # At most one continuation of each beam ends.
    total_BM, index_BM = jax.lax.top_k(total_BM, min(2 * beams, total_BM.shape[1]))

    def pick(values_QX: Array) -> Array:
        return jnp.take_along_axis(values_QX.reshape(rows, -1), index_BM, axis=1)

    return _Candidates(index_BM // (beams + 1), pick(token_QX), pick(logprob_QX), total_BM)


def _with_ended(
    state: _Beams, candidates: _Candidates, ended_BM: Bool[Array, "B M"], column: Int[Array, ""]
) -> _Finished:
    """Put sequences that have ended behind those that did before, as far as there is room."""
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
        length_BE=jnp.where(is_new_BE, column, finished.length_BE),
        total_BE=jnp.where(is_new_BE, ended.total_BM, finished.total_BE),
        end_BE=jnp.where(is_new_BE, ended.logprob_BM, finished.end_BE),
    )


def _best(final: _Beams, decoder: DecodeLoop, options: SearchOptions, end: int) -> GenerateOutput:
    """Rank what has ended, and as many unfinished beams as are missing."""
    finished, beams = final.finished, options.num_beams
    most = finished.total_BE.shape[1]
    length_BK = jnp.broadcast_to(final.length_B[:, None], final.total_BK.shape)
    is_there = jnp.concatenate(
        [
            jnp.arange(most) < finished.count_B[:, None],
            jnp.arange(beams) < beams - finished.count_B[:, None],
        ],
        axis=1,
    )
    total = jnp.concatenate([finished.total_BE, final.total_BK], axis=1)
    length = jnp.concatenate([finished.length_BE, length_BK], axis=1)
    path = jnp.concatenate([finished.path_BET, final.hypotheses.path_BKT], axis=1)
    best_B1 = jnp.where(is_there, rank_scores(total, length, options.length_penalty), -jnp.inf).argmax(
        axis=1, keepdims=True
    )
    length_B = jnp.take_along_axis(length, best_B1, axis=1)[:, 0]
    path_BT = jnp.take_along_axis(path, best_B1[:, :, None], axis=1)[:, 0]
    tokens_BT, logprobs_BT = final.hypotheses.along(path_BT, length_B, end)
    end_B1 = jnp.take_along_axis(finished.end_BE, jnp.minimum(best_B1, most - 1), axis=1)
    at_end_BT = (jnp.arange(tokens_BT.shape[1]) == length_B[:, None]) & (best_B1 < most)
    return GenerateOutput(
        tokens_BT=tokens_BT,
        logprobs_BT=jnp.where(at_end_BT, end_B1, logprobs_BT),
        length_B=length_B,
        avg_logprob_B=jnp.take_along_axis(total, best_B1, axis=1)[:, 0] / (length_B + 1),
        no_speech_prob_B=decoder.no_speech_prob_B,
    )
