"""Speculative decoding: a student drafts for every row of a batch, and its teacher verifies all at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding import loop
from flax_distil.decoding.drafting import Draft, Drafter, pick
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import SamplingParams
from flax_distil.decoding.types import GenerateInputs, RowSettings, SpeculativeOutput
from flax_distil.decoding.verification import Emitted, count_through, verify
from flax_distil.model.cache import DecoderCache
from flax_distil.model.decoder import Decoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """State of the loop.

    Attributes:
        teacher: Cache of the teacher; it holds the tokens before ``position_B``.
        student: Cache of the student; it holds at least the tokens before the last two.
        recent_B2: The last two tokens, of the prompt where none were emitted.
        position_B: Position of the last one.
        history: What was emitted; ``count`` differs from row to row.
        tokens_BW: Emitted tokens, with room for a whole draft behind the last.
        logprobs_BW: Their log-probabilities, of the teacher.
        done_B: Rows that have ended.
        counts_B3: Numbers of rounds, of drafted tokens and of accepted tokens.
        rows: What each row is decoded with.
        no_speech_prob_B: Probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
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
    rows: RowSettings
    no_speech_prob_B: Float[Array, " B"]

    def after_last(self, draft: Draft) -> Int[Array, "B J"]:
        """Return a draft behind the last token that was emitted, or that of the prompt."""
        return jnp.concatenate([self.recent_B2[:, 1:], draft.tokens_BK], axis=1)


class SpeculativeLoop:
    """Emits what the teacher alone would emit, in fewer of its passes; all within one trace.

    Round by round the student drafts tokens of every row, and the teacher reads them at once::

        emitted            the  cat
        drafted                     sat  on   a    chair
        teacher's next              sat  on   the
        emitted            the  cat sat  on   the              two accepted, one of the teacher's own

    Each row goes on behind its own last token; what its caches hold beyond that is never seen. At temperature
    0 the tokens are the teacher's most likely ones. At a temperature a drafted token is accepted with
    probability ``min(1, p / q)``, where p is its probability for the teacher and q for the student. The token
    in place of the first that is not accepted is sampled from ``max(p - q, 0)``. So the tokens have the
    teacher's distribution. ``loop.decode_to_the_end`` runs it.

    Source: arXiv 2211.17192, algorithm 1; arXiv 2311.00430, section 5.3.

    Attributes:
        sizes: Lengths of the small cache and of the large one, which can hold everything.
    """

    def __init__(
        self,
        teacher: Decoder,
        student: Decoder,
        processors: LogitsProcessors,
        options: SearchOptions,
        *,
        prompt_slots: int,
        max_new_tokens: int,
        num_assistant_tokens: int,
        draft_embedding_ND: Float[Array, "N E"] | None = None,
    ):
        """Take what the loop reads.

        Args:
            teacher: Bound to its parameters.
            student: Has the same vocabulary and as many positions.
            processors: Which tokens may be emitted, in drafts too.
            options: ``top_k`` and ``top_p`` of rows at a temperature.
            prompt_slots: Length that prompts are padded to.
            max_new_tokens: Maximum number of tokens per row.
            num_assistant_tokens: Maximum number of tokens of a draft, which ends earlier where the student is
                unsure.
            draft_embedding_ND: Result of ``draft_embedding``, where it is at hand.
        """
        self._teacher, self._layers = teacher, teacher.unroll_layers()
        self._drafter = Drafter(student, processors, num_assistant_tokens, draft_embedding_ND)
        self._processors, self._options = processors, options
        self._prompt_slots, self._max_new_tokens = prompt_slots, max_new_tokens
        full = min(teacher.config.max_target_positions, prompt_slots + max_new_tokens) + num_assistant_tokens
        least = prompt_slots + num_assistant_tokens
        self.sizes = min(full, max(loop.INITIAL_CACHE_LENGTH, least)), full

    def begin(self, inputs: GenerateInputs, size: int) -> _State:
        """Read the prompts, and emit the first tokens; the teacher reads the first draft with the prompt.

        Args:
            inputs: The batch.
            size: Length of the caches; they are made longer where they must hold the prompts and a draft.
        """
        special, drafted = self._processors.special, self._drafter.num_tokens
        prompt_BP, rows = inputs.prompt_BP, len(inputs.prompt_BP)
        state, hidden_BD = self._empty(inputs, max(size, self._prompt_slots + drafted))
        draft = self._draft(state, state.student, hidden_BD)
        read_BT = _write(jnp.pad(prompt_BP, [(0, 0), (0, drafted)]), draft.tokens_BK, inputs.prompt_length_B)
        hidden_BTD, cache = self._teacher.decode(
            self._layers, read_BT, state.teacher, jnp.zeros(rows, jnp.int32)
        )
        next_BJ = state.position_B[:, None] + jnp.arange(drafted + 1)
        asked_BJ = jnp.concatenate([inputs.at_start(special.sot)[:, None], next_BJ], axis=1)
        logits_BJV = self._teacher.logits(jnp.take_along_axis(hidden_BTD, asked_BJ[:, :, None], axis=1))
        no_speech_prob_B = jax.nn.softmax(logits_BJV[:, 0])[:, special.no_speech]
        state = dataclasses.replace(state, no_speech_prob_B=no_speech_prob_B)
        return self._verify(state, draft, logits_BJV[:, 1:], cache)

    def _empty(self, inputs: GenerateInputs, length: int) -> tuple[_State, Float[Array, "B D"]]:
        """Return the state before the first draft, and the student's hidden states to begin it with."""
        rows = len(inputs.prompt_BP)
        room = self._max_new_tokens + self._drafter.num_tokens
        hidden_BD, student_cache = self._drafter.prefill(inputs, length)
        history = TokenHistory.after_prompts(self._processors, inputs, max_new_tokens=room)
        recent_B2 = jnp.maximum(inputs.prompt_length_B[:, None] - jnp.array([2, 1]), 0)
        settings = inputs.rows(self._teacher.config.max_target_positions, self._max_new_tokens)
        state = _State(
            teacher=self._teacher.init_cache(inputs.encoder_out_BSD, length),
            student=student_cache,
            recent_B2=jnp.take_along_axis(inputs.prompt_BP, recent_B2, axis=1),
            position_B=inputs.prompt_length_B - 1,
            history=dataclasses.replace(history, count=jnp.zeros(rows, jnp.int32)),
            tokens_BW=jnp.full((rows, room + 1), self._processors.special.eot, jnp.int32),
            logprobs_BW=jnp.zeros((rows, room + 1), jnp.float32),
            done_B=settings.limit_B < 1,
            counts_B3=jnp.zeros((rows, 3), jnp.int32),
            rows=settings,
            no_speech_prob_B=jnp.zeros(rows, jnp.float32),
        )
        return state, hidden_BD

    def goes_on(self, length: int, state: _State) -> Bool[Array, ""]:
        """Say whether a row has not ended, and a cache of this length has room for a draft."""
        return ~self.is_done(state) & self.has_room(length, state)

    def has_room(self, length: int, state: _State) -> Bool[Array, ""]:
        """Say whether a cache of this length has room for a draft of every row that goes on."""
        furthest = jnp.where(state.done_B, -1, state.position_B).max()
        return furthest + self._drafter.num_tokens < length

    def is_done(self, state: _State) -> Bool[Array, ""]:
        """Say whether all rows have ended."""
        return state.done_B.all()

    def ended(self, state: _State) -> Bool[Array, " B"]:
        """Say which rows have ended."""
        return state.done_B

    def place(self, state: _State, begun: _State, source: Array, row: Array, is_wanted: Array) -> _State:
        """Return a state in whose row another window begins; see ``place_rows``."""
        placed: _State = loop.place_rows(state, begun, source, row, is_wanted)
        return placed

    def output(self, state: _State) -> SpeculativeOutput:
        """Return the tokens of every row."""
        tokens_BT, logprobs_BT = (
            values[:, : self._max_new_tokens] for values in (state.tokens_BW, state.logprobs_BW)
        )
        length_B = (tokens_BT != self._processors.special.eot).sum(axis=1)
        return SpeculativeOutput(
            tokens_BT=tokens_BT,
            logprobs_BT=logprobs_BT,
            length_B=length_B,
            avg_logprob_B=logprobs_BT.sum(axis=1) / (length_B + 1),
            no_speech_prob_B=state.no_speech_prob_B,
            rounds_B=state.counts_B3[:, 0],
            drafted_B=state.counts_B3[:, 1],
            accepted_B=state.counts_B3[:, 2],
            emitted_B=state.history.count,
        )

    def resize(self, state: _State, length: int) -> _State:
        """Return a state with caches of this length."""
        return dataclasses.replace(
            state, teacher=state.teacher.resized(length), student=state.student.resized(length)
        )

    def step(self, state: _State) -> _State:
        """Draft, verify, and emit one token or more of every row."""
        hidden_BD, cache = self._drafter.catch_up(state.student, state.recent_B2, state.position_B)
        draft = self._draft(state, cache, hidden_BD)
        hidden_BJD, cache = self._teacher.decode(
            self._layers, state.after_last(draft), state.teacher, state.position_B
        )
        return self._verify(state, draft, self._teacher.logits(hidden_BJD), cache)

    def _sampling(self, state: _State) -> SamplingParams | None:
        """Return how tokens are sampled; None takes the most likely ones."""
        temperature_B, seed_B = state.rows.temperature_B, state.rows.seed_B
        if temperature_B is None or seed_B is None:
            return None
        return SamplingParams(temperature_B, seed_B, self._options)

    def _draft(self, state: _State, cache: DecoderCache, hidden_BD: Float[Array, "B D"]) -> Draft:
        """Let the student propose tokens of every row; see ``Drafter.draft``."""
        return self._drafter.draft(
            cache, hidden_BD, state.position_B, state.history, state.done_B, self._sampling(state)
        )

    def _verify(
        self, state: _State, draft: Draft, logits_BJV: Float[Array, "B J V"], cache: DecoderCache
    ) -> _State:
        """Emit what the teacher accepts of a draft, and its own token behind.

        Args:
            state: Before the draft.
            draft: The draft.
            logits_BJV: The teacher's logits for each token of it, and for the one behind.
            cache: The teacher's cache, which holds all that it has read.
        """
        emitted = verify(
            draft,
            logits_BJV,
            self._drafter.histories(state.history, draft),
            processors=self._processors,
            sampling=self._sampling(state),
        )
        return self._advance(state, draft, emitted, cache)

    def _advance(self, state: _State, draft: Draft, emitted: Emitted, cache: DecoderCache) -> _State:
        """Return the state after the verified tokens, up to an end of text or the row's limit."""
        special, found_BJ, accepted_B = self._processors.special, emitted.found_BJ, emitted.accepted_B
        end, room_B = special.eot, state.rows.limit_B - state.history.count
        through_end_B = count_through(found_BJ == end)
        emitted_B = jnp.minimum(jnp.minimum(accepted_B + 1, through_end_B), room_B)
        emitted_B = jnp.where(state.done_B, 0, emitted_B)
        is_emitted_BJ = jnp.arange(found_BJ.shape[1]) < emitted_B[:, None]
        has_moved_B, last_B = emitted_B > 0, jnp.maximum(emitted_B - 1, 0)
        before_last = jax.tree.map(
            lambda *leaves: pick(jnp.stack(leaves, axis=1), last_B), *emitted.histories
        )
        token_B = pick(found_BJ, last_B)
        recent_B2 = jnp.stack([pick(state.after_last(draft), last_B), token_B], axis=1)
        useful_B = jnp.minimum((draft.tokens_BK >= 0).sum(axis=1), room_B)
        counts_B3 = jnp.stack([jnp.ones_like(useful_B), useful_B, jnp.minimum(accepted_B, emitted_B)], axis=1)
        where_moved = functools.partial(_where_rows, has_moved_B)
        new_tokens_BJ = jnp.where(is_emitted_BJ, found_BJ, end)
        new_logprobs_BJ = jnp.where(is_emitted_BJ, emitted.logprob_BJ, 0.0)
        is_full_B = state.history.count + emitted_B >= state.rows.limit_B
        return _State(
            teacher=cache,
            student=draft.cache,
            recent_B2=where_moved(recent_B2, state.recent_B2),
            position_B=state.position_B + emitted_B,
            history=jax.tree.map(where_moved, before_last.append(token_B, special), state.history),
            tokens_BW=_write(state.tokens_BW, new_tokens_BJ, state.history.count),
            logprobs_BW=_write(state.logprobs_BW, new_logprobs_BJ, state.history.count),
            done_B=state.done_B | (has_moved_B & (token_B == end)) | is_full_B,
            counts_B3=state.counts_B3 + jnp.where(has_moved_B[:, None], counts_B3, 0),
            rows=state.rows,
            no_speech_prob_B=state.no_speech_prob_B,
        )


def _where_rows(is_so_B: Bool[Array, " B"], one: Array, other: Array) -> Array:
    """Take whole rows from one array or from the other."""
    return jnp.where(is_so_B.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def _write(row_BW: Array, new_BK: Array, start_B: Int[Array, " B"]) -> Array:
    """Write new entries of every row, each from its own index on."""
    write = jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice(row, new, (start,)))
    return write(row_BW, new_BK, start_B)
