"""A student drafts the next tokens of every row, over the part of the vocabulary that is said most."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import warp_logits
from flax_distil.model.cache import DecoderCache
from flax_distil.model.decoder import Decoder
from flax_distil.model.projections import project_onto_tokens

DRAFT_TEXT_TOKENS = 16384
"""Drafts are made of the first text tokens alone: ids are in the order in which byte pairs were merged,
frequent ones first. Of the bundled prompts they are 93 % (the first 8192: 85 %), of other languages 67 to
83 % of one long sentence. Projecting on all would take most of a step of a 2-layer student of base.
"""

DRAFT_CONFIDENCE_THRESHOLD = 0.4
"""A draft ends where the student thinks it less likely than this that all of it is accepted."""

DRAFT, ACCEPT, CORRECT = range(3)
"""What a random number is for."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a student proposes.

    Attributes:
        tokens_BK: one after the other, -1 behind the last.
        histories: what the processors know before each of them and after the last, K + 1.
        log_q_BKV: natural logarithm of the probabilities they were drawn from, minus infinity behind;
            None of the likeliest tokens.
        cache: of the student, with the tokens but the last.
    """

    tokens_BK: Int[Array, "B K"]
    histories: list[TokenHistory]
    log_q_BKV: Float[Array, "B K V"] | None
    cache: DecoderCache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Drafting:
    """State of the loop over the tokens of a draft: as ``Draft``, and which rows go on.

    Attributes:
        place: of the next token in the draft.
        hidden_BD: what the student makes of the token before it.
        history: of the processors.
        confidence_B: logarithm of how likely the whole draft is; minus infinity once it ended.
    """

    place: Int[Array, ""]
    hidden_BD: Float[Array, "B D"]
    history: TokenHistory
    confidence_B: Float[Array, " B"]
    tokens_BK: Int[Array, "B K"]
    log_q_BKV: Float[Array, "B K V"] | None
    cache: DecoderCache


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn: at its temperature and from its seed, whatever the other rows are.

    Attributes:
        temperature_B: 0 for the likeliest token.
        seed_B: a draw depends on this, the place of the token in its row, and what it is for.
        options: ``top_k`` and ``top_p``.
    """

    temperature_B: Float[Array, " B"]
    seed_B: Int[Array, " B"]
    options: SearchOptions

    def log_probabilities(self, scores_BV: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Return the natural logarithm of the probabilities that are drawn from."""
        is_drawn_B = self.temperature_B > 0
        likeliest_BV = jnp.arange(scores_BV.shape[1]) == scores_BV.argmax(axis=1)[:, None]
        certain_BV = jnp.where(likeliest_BV, 0.0, -jnp.inf)
        warped_BV = warp_logits(scores_BV, jnp.where(is_drawn_B, self.temperature_B, 1.0), self.options)
        return jnp.where(is_drawn_B[:, None], jax.nn.log_softmax(warped_BV), certain_BV)

    def tokens(
        self, log_probability_BV: Float[Array, "B V"], count_B: Int[Array, " B"], use: int
    ) -> Int[Array, " B"]:
        """Draw a token of every row at place ``count_B``."""
        drawn_B = jax.vmap(jax.random.categorical)(self._keys(count_B, use), log_probability_BV)
        return drawn_B.astype(jnp.int32)

    def log_uniform(self, count_B: Int[Array, " B"], use: int) -> Float[Array, " B"]:
        """Draw the logarithm of a number between 0 and 1 for every row."""
        return jnp.log(jax.vmap(jax.random.uniform)(self._keys(count_B, use)))

    def _keys(self, count_B: Int[Array, " B"], use: int) -> Array:
        def key(seed: Array, count: Array) -> Array:
            return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), use)

        return jax.vmap(key)(self.seed_B, count_B)


def draft_embedding(student: Decoder, processors: LogitsProcessors) -> Float[Array, "N D"]:
    """Return the output embedding of the tokens that drafts are made of: text, end-of-text and behind."""
    end = processors.special.eot
    last = student.config.vocab_size if processors.return_timestamps else end + 1
    return student.output_embedding(
        jnp.concatenate([jnp.arange(min(DRAFT_TEXT_TOKENS, end)), jnp.arange(end, last)])
    )


class Drafter:
    """A student's decoder with what its loop reads, taken out of its weights once."""

    def __init__(
        self,
        student: Decoder,
        processors: LogitsProcessors,
        num_assistant_tokens: int,
        embedding_ND: Float[Array, "N D"] | None = None,
    ):
        self._student, self._rules, self._tokens = student, processors, num_assistant_tokens
        self._layers: list[Any] = student.unroll_layers()
        self._text = min(DRAFT_TEXT_TOKENS, processors.special.eot)
        self._embedding_ND = draft_embedding(student, processors) if embedding_ND is None else embedding_ND

    def prefill(
        self,
        prompt_BP: Int[Array, "B P"],
        prompt_length_B: Int[Array, " B"],
        encoder_out_BSD: Float[Array, "B S D"],
        slots: int,
    ) -> tuple[Float[Array, "B D"], DecoderCache]:
        """Return what the student makes of each prompt's last token, and a cache that holds the prompts."""
        cache = self._student.init_cache(encoder_out_BSD, slots)
        start_B = jnp.zeros(len(prompt_BP), jnp.int32)
        hidden_BPD, cache = self._student.decode(self._layers, prompt_BP, cache, start_B)
        return pick(hidden_BPD, prompt_length_B - 1), cache

    def catch_up(
        self, cache: DecoderCache, recent_B2: Int[Array, "B 2"], position_B: Int[Array, " B"]
    ) -> tuple[Float[Array, "B D"], DecoderCache]:
        """Return what the student makes of the last token, and the grown cache.

        Args:
            cache: whatever was drafted last, all tokens before the last two are in it. The last accepted
                draft may not be: the student stopped at it.
            recent_B2: the last two tokens.
            position_B: of the last one.
        """
        start_B = jnp.maximum(position_B - 1, 0)
        recent_B2 = jnp.where(position_B[:, None] > 0, recent_B2, recent_B2[:, 1:])
        hidden_B2D, cache = self._student.decode(self._layers, recent_B2, cache, start_B)
        return pick(hidden_B2D, position_B - start_B), cache

    def draft(
        self,
        cache: DecoderCache,
        hidden_BD: Float[Array, "B D"],
        position_B: Int[Array, " B"],
        history: TokenHistory,
        done_B: Bool[Array, " B"],
        sampling: SamplingParams | None,
    ) -> Draft:
        """Propose the next tokens of every row; each row has its own number of them.

        Args:
            cache: of the tokens up to the last.
            hidden_BD: what the student makes of the last.
            position_B: of the last.
            history: of the processors.
            done_B: rows that need no draft.
            sampling: None for the likeliest tokens.
        """
        rows, vocabulary = len(hidden_BD), self._student.config.vocab_size
        first = _Drafting(
            place=jnp.zeros((), jnp.int32),
            hidden_BD=hidden_BD,
            history=history,
            confidence_B=jnp.where(done_B, -jnp.inf, 0.0),
            tokens_BK=jnp.full((rows, self._tokens), -1, jnp.int32),
            log_q_BKV=None if sampling is None else jnp.full((rows, self._tokens, vocabulary), -jnp.inf),
            cache=cache,
        )

        def read(drafting: _Drafting) -> _Drafting:
            """Let the student read what it drafted last."""
            token_B1 = drafting.history.last_B[:, None]
            position = position_B + drafting.place
            hidden_B1D, cache = self._student.decode(self._layers, token_B1, drafting.cache, position)
            return dataclasses.replace(drafting, hidden_BD=hidden_B1D[:, 0], cache=cache)

        def goes_on(drafting: _Drafting) -> Bool[Array, ""]:
            return (drafting.place < self._tokens) & (drafting.confidence_B > -jnp.inf).any()

        propose = functools.partial(self._propose, sampling)
        final = jax.lax.while_loop(goes_on, lambda drafting: propose(read(drafting)), propose(first))
        histories = [history]
        for place in range(self._tokens):
            histories.append(self._after(histories[-1], final.tokens_BK[:, place]))
        return Draft(final.tokens_BK, histories, final.log_q_BKV, final.cache)

    def _after(self, history: TokenHistory, token_B: Int[Array, " B"]) -> TokenHistory:
        return history.followed_by(token_B, self._rules.special)

    def _propose(self, sampling: SamplingParams | None, drafting: _Drafting) -> _Drafting:
        """Add the next token of every row whose draft has not ended."""
        place, history, log_q_BKV = drafting.place, drafting.history, drafting.log_q_BKV
        goes_on_B = drafting.confidence_B > -jnp.inf
        scores_BV = process_logits(self._rules, self._logits(drafting.hidden_BD), history)
        if sampling is None:
            token_B = scores_BV.argmax(axis=1).astype(jnp.int32)
        else:
            assert log_q_BKV is not None
            log_q_BV = sampling.log_probabilities(scores_BV)
            token_B = sampling.tokens(log_q_BV, history.count, DRAFT)
            log_q_BKV = log_q_BKV.at[:, place].set(jnp.where(goes_on_B[:, None], log_q_BV, -jnp.inf))
        logprob_B = jnp.take_along_axis(scores_BV, token_B[:, None], axis=1)[:, 0]
        confidence_B = drafting.confidence_B + logprob_B - jax.nn.logsumexp(scores_BV, axis=1)
        is_last_B = (confidence_B < math.log(DRAFT_CONFIDENCE_THRESHOLD)) | (
            token_B == self._rules.special.eot
        )
        return dataclasses.replace(
            drafting,
            place=place + 1,
            history=self._after(history, token_B),
            confidence_B=jnp.where(goes_on_B & ~is_last_B, confidence_B, -jnp.inf),
            tokens_BK=drafting.tokens_BK.at[:, place].set(jnp.where(goes_on_B, token_B, -1)),
            log_q_BKV=log_q_BKV,
        )

    def _logits(self, hidden_BD: Float[Array, "B D"]) -> Float[Array, "B V"]:
        """Return logits, minus infinity outside the part that drafts are made of."""
        logits_BN = project_onto_tokens(hidden_BD[:, None], self._embedding_ND)[:, 0]
        rows, special = len(hidden_BD), self._rules.special
        text, others = logits_BN[:, : self._text], logits_BN[:, self._text :]
        vocabulary = self._student.config.vocab_size
        before = jnp.full((rows, special.eot - self._text), -jnp.inf)
        behind = jnp.full((rows, vocabulary - special.eot - others.shape[1]), -jnp.inf)
        return jnp.concatenate([text, before, others, behind], axis=1)


def pick(values: Array, index_B: Int[Array, " B"]) -> Array:
    """Return one entry of the second axis for every row."""
    index = index_B.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.take_along_axis(values, index, axis=1)[:, 0]
