"""Speculative decoding in batches: a student drafts for every row, one pass of its teacher checks all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.drafting import ACCEPT, CORRECT, Draft, Drafter, SamplingParams, pick
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.decoding.loop import INITIAL_CACHE_LENGTH, grow_cache_and_continue, token_limits
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.result import GenerateOutput
from flax_distil.model.cache import DecoderCache
from flax_distil.model.decoder import Decoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SpeculativeOutput(GenerateOutput):
    """What a speculative search returns: the teacher's tokens, and what they cost.

    Attributes:
        rounds_B: passes of the teacher over a draft, until the row had ended.
        drafted_B: tokens that the student proposed, those behind an end of text or a limit left out.
        accepted_B: how many of them were emitted.
        emitted_B: all tokens that were, end-of-text included.
    """

    rounds_B: Int[Array, " B"]
    drafted_B: Int[Array, " B"]
    accepted_B: Int[Array, " B"]
    emitted_B: Int[Array, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Search:
    """State of the loop.

    Attributes:
        teacher: its cache; it holds the tokens before ``position_B``.
        student: its cache; it holds at least those before the last two.
        recent_B2: the last two tokens, of the prompt where none were emitted.
        position_B: of the last one.
        history: what was emitted; ``count`` differs from row to row.
        tokens_BW: emitted tokens, with room for a whole draft behind the last.
        logprobs_BW: of the teacher.
        done_B: rows that have ended.
        counts_B3: rounds, drafted and accepted tokens.
    """

    teacher: DecoderCache
    student: DecoderCache
    recent_B2: Int[Array, "B 2"]
    position_B: Int[Array, " B"]
    history: TokenHistory
    tokens_BW: Int[Array, "B W"]
    logprobs_BW: Float[Array, "B W"]
    done_B: Bool[Array, " B"]
    counts_B3: Int[Array, "B 3"]


def speculative_generate(
    teacher: Decoder,
    student: Decoder,
    encoder_out_BSD: Float[Array, "B S D"],
    prompt_BP: Int[Array, "B P"],
    prompt_length_B: Int[Array, " B"],
    *,
    processors: LogitsProcessors,
    options: SearchOptions,
    num_assistant_tokens: int,
    max_new_tokens: int,
    student_encoder_out_BSD: Float[Array, "B S E"] | None = None,
    draft_embedding_ND: Float[Array, "N E"] | None = None,
    limit_B: Int[Array, " B"] | None = None,
    temperature_B: Float[Array, " B"] | None = None,
    seed_B: Int[Array, " B"] | None = None,
    prefix_length_B: Int[Array, " B"] | None = None,
) -> SpeculativeOutput:
    """Emit what the teacher alone would emit, in fewer of its passes.

    Round by round the student drafts tokens of every row, and the teacher reads them at once::

        emitted            the  cat
        drafted                     sat  on   a    chair
        teacher's next              sat  on   the
        emitted            the  cat sat  on   the              two accepted, one of the teacher's own

    Each row goes on behind its own last token: what a cache holds beyond is never seen. At temperature 0 the
    tokens are the teacher's likeliest ones. At a temperature a draft is accepted with probability
    ``min(1, p / q)``, p being the teacher's probability of it and q the student's, and the token in place
    of the first that is not is drawn from ``max(p - q, 0)``: so tokens have the teacher's distribution.

    Args:
        teacher: bound to its parameters.
        student: of the same vocabulary and as many positions.
        encoder_out_BSD: encoder states.
        prompt_BP: as ``search`` takes them, as the following are.
        prompt_length_B: tokens of each prompt.
        processors: static; drafts obey them too.
        options: static; ``top_k`` and ``top_p`` of rows at a temperature.
        num_assistant_tokens: static; most tokens of a draft, which ends earlier where the student is unsure.
        max_new_tokens: static.
        student_encoder_out_BSD: of the student's own encoder; by default it attends to the teacher's.
        draft_embedding_ND: of ``draft_embedding``, where it is at hand.
        limit_B: smaller limits of single rows; a row of limit 0 is idle.
        temperature_B: of each row; None for 0.
        seed_B: what a row's sampling depend on; with ``temperature_B``.
        prefix_length_B: see ``search``.

    Raises:
        ValueError: if the padded prompts leave no position for a token.

    Source: arXiv 2211.17192, algorithm 1; arXiv 2311.00430, section 5.3.
    """
    rows, prompt_slots = prompt_BP.shape
    positions, drafted = teacher.config.max_target_positions, num_assistant_tokens
    limit_B = token_limits(teacher, prompt_BP, prompt_length_B, max_new_tokens, limit_B)
    slots = min(positions, prompt_slots + max_new_tokens) + drafted
    few_slots = min(slots, max(INITIAL_CACHE_LENGTH, prompt_slots + drafted))
    drafter = Drafter(student, processors, drafted, draft_embedding_ND)
    special, layers = processors.special, teacher.unroll_layers()
    sampling = None
    if temperature_B is not None:
        sampling = SamplingParams(
            temperature_B, jnp.zeros(rows, jnp.int32) if seed_B is None else seed_B, options
        )
    verify = functools.partial(_verify, processors, limit_B, sampling)
    hidden_BD, student_cache = drafter.prefill(
        prompt_BP,
        prompt_length_B,
        encoder_out_BSD if student_encoder_out_BSD is None else student_encoder_out_BSD,
        few_slots,
    )
    history = TokenHistory.after_prompts(
        processors, prompt_BP, prompt_length_B, prefix_length_B, max_new_tokens=max_new_tokens + drafted
    )
    recent_B2 = jnp.maximum(prompt_length_B[:, None] - jnp.array([2, 1]), 0)
    empty = _Search(
        teacher=teacher.init_cache(encoder_out_BSD, few_slots),
        student=student_cache,
        recent_B2=jnp.take_along_axis(prompt_BP, recent_B2, axis=1),
        position_B=prompt_length_B - 1,
        history=dataclasses.replace(history, count=jnp.zeros(rows, jnp.int32)),
        tokens_BW=jnp.full((rows, max_new_tokens + drafted + 1), special.eot, jnp.int32),
        logprobs_BW=jnp.zeros((rows, max_new_tokens + drafted + 1), jnp.float32),
        done_B=limit_B < 1,
        counts_B3=jnp.zeros((rows, 3), jnp.int32),
    )

    # The first draft is read with the prompt.
    draft = drafter.draft(empty.student, hidden_BD, empty.position_B, empty.history, empty.done_B, sampling)
    read_BT = jnp.pad(prompt_BP, [(0, 0), (0, drafted)])
    read_BT = _write(read_BT, draft.tokens_BK, prompt_length_B)
    hidden_BTD, cache = teacher.decode(layers, read_BT, empty.teacher, jnp.zeros(rows, jnp.int32))
    start_B = (prompt_BP == special.sot).argmax(axis=1)
    asked_BJ = jnp.concatenate(
        [start_B[:, None], empty.position_B[:, None] + jnp.arange(drafted + 1)], axis=1
    )
    logits_BJV = teacher.logits(jnp.take_along_axis(hidden_BTD, asked_BJ[:, :, None], axis=1))
    first = verify(empty, draft, logits_BJV[:, 1:], cache)

    def emit(search: _Search) -> _Search:
        """Draft, check, and emit one token or more of every row."""
        hidden_BD, cache = drafter.catch_up(search.student, search.recent_B2, search.position_B)
        draft = drafter.draft(cache, hidden_BD, search.position_B, search.history, search.done_B, sampling)
        read_BJ = _with_last(search, draft)
        hidden_BJD, cache = teacher.decode(layers, read_BJ, search.teacher, search.position_B)
        return verify(search, draft, teacher.logits(hidden_BJD), cache)

    def search_up_to(slots: int, search: _Search) -> _Search:
        """Emit until all rows have ended or a cache of so many slots has no room for a draft."""

        def goes_on(search: _Search) -> Bool[Array, ""]:
            furthest = jnp.where(search.done_B, -1, search.position_B).max()
            return (furthest >= 0) & (furthest + drafted < slots)

        return jax.lax.while_loop(goes_on, emit, search)

    def resized(search: _Search, slots: int | None) -> _Search:
        return dataclasses.replace(
            search, teacher=search.teacher.resized(slots), student=search.student.resized(slots)
        )

    final = grow_cache_and_continue(
        first,
        search_up_to,
        resized,
        sizes=(few_slots, slots),
        is_done=lambda search: search.done_B.all(),
    )
    tokens_BT, logprobs_BT = final.tokens_BW[:, :max_new_tokens], final.logprobs_BW[:, :max_new_tokens]
    length_B = (tokens_BT != special.eot).sum(axis=1)
    return SpeculativeOutput(
        tokens_BT=tokens_BT,
        logprobs_BT=logprobs_BT,
        length_B=length_B,
        avg_logprob_B=logprobs_BT.sum(axis=1) / (length_B + 1),
        no_speech_prob_B=jax.nn.softmax(logits_BJV[:, 0])[:, special.no_speech],
        rounds_B=final.counts_B3[:, 0],
        drafted_B=final.counts_B3[:, 1],
        accepted_B=final.counts_B3[:, 2],
        emitted_B=final.history.count,
    )


def _verify(
    processors: LogitsProcessors,
    limit_B: Int[Array, " B"],
    sampling: SamplingParams | None,
    search: _Search,
    draft: Draft,
    logits_BJV: Float[Array, "B J V"],
    cache: DecoderCache,
) -> _Search:
    """Emit what the teacher accepts of a draft, and its own token behind; ``cache`` holds all it has read."""
    rows, drafted = draft.tokens_BK.shape
    flat = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:]), *draft.histories
    )
    scores_FV = process_logits(processors, logits_BJV.reshape(rows * (drafted + 1), -1), flat)
    scores_BJV = scores_FV.reshape(logits_BJV.shape)
    found_BJ, accepted_B = (
        _likeliest(scores_BJV, draft) if sampling is None else _drawn(scores_BJV, draft, sampling)
    )
    logprob_BJ = jnp.take_along_axis(scores_BJV, found_BJ[:, :, None], axis=2)[:, :, 0]
    logprob_BJ -= jax.nn.logsumexp(scores_BJV, axis=2)

    end, room_B = processors.special.eot, limit_B - search.history.count
    emitted_B = jnp.minimum(jnp.minimum(accepted_B + 1, _through(found_BJ == end)), room_B)
    emitted_B = jnp.where(search.done_B, 0, emitted_B)
    is_emitted_BJ = jnp.arange(drafted + 1) < emitted_B[:, None]
    last_B = jnp.maximum(emitted_B - 1, 0)
    before_last = jax.tree.map(lambda *leaves: pick(jnp.stack(leaves, axis=1), last_B), *draft.histories)
    token_B = pick(found_BJ, last_B)
    history = before_last.followed_by(token_B, processors.special)
    moved_B = emitted_B > 0
    read_BJ = _with_last(search, draft)
    useful_B = jnp.minimum((draft.tokens_BK >= 0).sum(axis=1), room_B)
    counts_B3 = jnp.stack([jnp.ones(rows, jnp.int32), useful_B, jnp.minimum(accepted_B, emitted_B)], axis=1)
    return _Search(
        teacher=cache,
        student=draft.cache,
        recent_B2=jnp.where(
            moved_B[:, None], jnp.stack([pick(read_BJ, last_B), token_B], axis=1), search.recent_B2
        ),
        position_B=search.position_B + emitted_B,
        history=jax.tree.map(functools.partial(_where_rows, moved_B), history, search.history),
        tokens_BW=_write(search.tokens_BW, jnp.where(is_emitted_BJ, found_BJ, end), search.history.count),
        logprobs_BW=_write(
            search.logprobs_BW, jnp.where(is_emitted_BJ, logprob_BJ, 0.0), search.history.count
        ),
        done_B=search.done_B | (moved_B & (token_B == end)) | (search.history.count + emitted_B >= limit_B),
        counts_B3=search.counts_B3 + jnp.where(moved_B[:, None], counts_B3, 0),
    )


def _with_last(search: _Search, draft: Draft) -> Int[Array, "B J"]:
    """Return a draft behind the last token emitted, or that of the prompt."""
    return jnp.concatenate([search.recent_B2[:, 1:], draft.tokens_BK], axis=1)


def _likeliest(scores_BJV: Float[Array, "B J V"], draft: Draft) -> tuple[Int[Array, "B J"], Int[Array, " B"]]:
    """Return the teacher's likeliest tokens, and how many drafted ones are the same."""
    best_BJ = scores_BJV.argmax(axis=2).astype(jnp.int32)
    return best_BJ, _leading(draft.tokens_BK == best_BJ[:, :-1])


def _drawn(
    scores_BJV: Float[Array, "B J V"], draft: Draft, sampling: SamplingParams
) -> tuple[Int[Array, "B J"], Int[Array, " B"]]:
    """Return the accepted drafts, each with the teacher's own token behind, and how many were accepted."""
    assert draft.log_q_BKV is not None
    log_p_BJV = jax.vmap(sampling.log_probabilities, in_axes=1, out_axes=1)(scores_BJV)
    count_BJ = jnp.stack([history.count for history in draft.histories], axis=1)

    def of_drafts(log_BJV: Array) -> Array:
        drafts_BK1 = jnp.maximum(draft.tokens_BK, 0)[:, :, None]
        return jnp.take_along_axis(log_BJV[:, : drafts_BK1.shape[1]], drafts_BK1, axis=2)[:, :, 0]

    chance_BK = of_drafts(log_p_BJV) - of_drafts(draft.log_q_BKV)
    chance_BK = jnp.where(draft.tokens_BK >= 0, chance_BK, -jnp.inf)
    coin_BK = jax.vmap(lambda count_B: sampling.log_uniform(count_B, ACCEPT), in_axes=1, out_axes=1)(
        count_BJ[:, :-1]
    )
    accepted_B = _leading(coin_BK < chance_BK)
    p_BV = jnp.exp(pick(log_p_BJV, accepted_B))
    # Behind a draft that was accepted whole nothing was proposed: q is 0.
    q_BJV = jnp.pad(jnp.exp(draft.log_q_BKV), [(0, 0), (0, 1), (0, 0)])
    left_BV = jnp.maximum(p_BV - pick(q_BJV, accepted_B), 0.0)
    left_BV = jnp.where(left_BV.sum(axis=1, keepdims=True) > 0, left_BV, p_BV)
    own_B = sampling.tokens(jnp.log(left_BV), pick(count_BJ, accepted_B), CORRECT)
    drafts_BJ = jnp.pad(draft.tokens_BK, [(0, 0), (0, 1)])
    is_accepted_BJ = jnp.arange(drafts_BJ.shape[1]) < accepted_B[:, None]
    return jnp.where(is_accepted_BJ, drafts_BJ, own_B[:, None]), accepted_B


def _leading(is_so_BK: Bool[Array, "B K"]) -> Int[Array, " B"]:
    """Count how many are true before the first that is not."""
    return jnp.cumprod(is_so_BK.astype(jnp.int32), axis=1).sum(axis=1)


def _through(is_so_BK: Bool[Array, "B K"]) -> Int[Array, " B"]:
    """Count those up to the first that is true, itself included; all if none is."""
    return jnp.minimum(_leading(~is_so_BK) + 1, is_so_BK.shape[1])


def _where_rows(is_so_B: Bool[Array, " B"], one: Array, other: Array) -> Array:
    """Take whole rows from one array or from the other."""
    return jnp.where(is_so_B.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def _write(row_BW: Array, new_BK: Array, start_B: Int[Array, " B"]) -> Array:
    """Write new entries of every row from its own place on."""
    write = jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice(row, new, (start,)))
    return write(row_BW, new_BK, start_B)
