"""A student drafts the next tokens of every row, from the part of the vocabulary that is said most often."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.decoding.sampling import SamplingParams
from flax_distil.decoding.types import GenerateInputs
from flax_distil.model.cache import DecoderCache
from flax_distil.model.decoder import Decoder
from flax_distil.model.projections import project_onto_tokens

DRAFT_TEXT_TOKENS = 16384
"""Drafts consist of the first text tokens alone. Ids are in the order in which byte pairs were merged, so
frequent tokens come first. These are 93 % of the bundled prompts (the first 8192: 85 %), and 67 to 83 % of
one long sentence in other languages. Projecting on all tokens would take most of a step of a 2-layer student
of base.
"""

DRAFT_CONFIDENCE_THRESHOLD = 0.4
"""A draft ends where the student's probability that all of it is accepted falls below this."""

DRAFT, ACCEPT, CORRECT = range(3)
"""What a random number is used for."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draft:
    """What the student proposes, and the state of the loop that proposes it.

    Attributes:
        count: Number of tokens so far, in the longest draft.
        hidden_BD: The student's hidden states of the last token, which the next one is chosen from.
        history: What the logits processors know of the last token.
        confidence_B: Logarithm of the probability that the whole draft is accepted; minus infinity once it
            has ended.
        tokens_BK: The tokens of each draft, -1 behind the last.
        log_q_BKV: Natural logarithm of the probabilities that they were sampled from, minus infinity behind
            the last; None if they are the most likely tokens.
        cache: Cache of the student, which holds the tokens except for the last.
    """

    count: Int[Array, ""]
    hidden_BD: Float[Array, "B D"]
    history: TokenHistory
    confidence_B: Float[Array, " B"]
    tokens_BK: Int[Array, "B K"]
    log_q_BKV: Float[Array, "B K V"] | None
    cache: DecoderCache

    @property
    def goes_on_B(self) -> Bool[Array, " B"]:
        """Which rows have not ended their draft."""
        return self.confidence_B > -jnp.inf


def draft_embedding(student: Decoder, processors: LogitsProcessors) -> Float[Array, "N D"]:
    """Return the output embedding of the tokens that drafts consist of: text, end-of-text, those behind."""
    end = processors.special.eot
    last = student.config.vocab_size if processors.return_timestamps else end + 1
    return student.output_embedding(
        jnp.concatenate([jnp.arange(min(DRAFT_TEXT_TOKENS, end)), jnp.arange(end, last)])
    )


class Drafter:
    """A student's decoder, with the weights that its loop reads taken out of its tree once.

    Attributes:
        num_tokens: Maximum number of tokens of a draft.
    """

    def __init__(
        self,
        student: Decoder,
        processors: LogitsProcessors,
        num_tokens: int,
        embedding_ND: Float[Array, "N D"] | None = None,
    ):
        """Take what the loop reads.

        Args:
            student: Bound to its parameters.
            processors: Which tokens may be emitted.
            num_tokens: Maximum number of tokens of a draft.
            embedding_ND: Result of ``draft_embedding``, where it is at hand.
        """
        self._student, self._processors, self.num_tokens = student, processors, num_tokens
        self._layers: list[Any] = student.unroll_layers()
        self._text = min(DRAFT_TEXT_TOKENS, processors.special.eot)
        self._embedding_ND = draft_embedding(student, processors) if embedding_ND is None else embedding_ND

    def prefill(self, inputs: GenerateInputs, cache_length: int) -> tuple[Float[Array, "B D"], DecoderCache]:
        """Return the hidden states of each prompt's last token, and a cache that holds the prompts."""
        own_out_BSE = inputs.assistant_encoder_out_BSE
        cache = self._student.init_cache(
            inputs.encoder_out_BSD if own_out_BSE is None else own_out_BSE, cache_length
        )
        start_B = jnp.zeros(len(inputs.prompt_BP), jnp.int32)
        hidden_BPD, cache = self._student.decode(self._layers, inputs.prompt_BP, cache, start_B)
        return pick(hidden_BPD, inputs.prompt_length_B - 1), cache

    def catch_up(
        self, cache: DecoderCache, recent_B2: Int[Array, "B 2"], position_B: Int[Array, " B"]
    ) -> tuple[Float[Array, "B D"], DecoderCache]:
        """Return the hidden states of the last token, and the cache with the last two tokens.

        Args:
            cache: Holds all tokens before the last two. If all of a draft was accepted, its last token is
                missing, since the student stopped at it.
            recent_B2: The last two tokens.
            position_B: Position of the last one.
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
        """Propose the next tokens of every row; rows differ in how many they get.

        Args:
            cache: Holds the tokens up to the last.
            hidden_BD: The student's hidden states of the last token.
            position_B: Position of the last token.
            history: What the logits processors know.
            done_B: Rows that need no draft.
            sampling: How tokens are sampled; None takes the most likely ones.
        """
        rows, vocabulary = len(hidden_BD), self._student.config.vocab_size
        shape = (rows, self.num_tokens)
        first = Draft(
            count=jnp.zeros((), jnp.int32),
            hidden_BD=hidden_BD,
            history=history,
            confidence_B=jnp.where(done_B, -jnp.inf, 0.0),
            tokens_BK=jnp.full(shape, -1, jnp.int32),
            log_q_BKV=None if sampling is None else jnp.full((*shape, vocabulary), -jnp.inf),
            cache=cache,
        )

        def step(draft: Draft) -> Draft:
            """Let the student read the last token of its draft, and propose the next one."""
            hidden_B1D, cache = self._student.decode(
                self._layers, draft.history.last_B[:, None], draft.cache, position_B + draft.count
            )
            return self._propose(
                dataclasses.replace(draft, hidden_BD=hidden_B1D[:, 0], cache=cache), sampling
            )

        def goes_on(draft: Draft) -> Bool[Array, ""]:
            return (draft.count < self.num_tokens) & draft.goes_on_B.any()

        return jax.lax.while_loop(goes_on, step, self._propose(first, sampling))

    def histories(self, history: TokenHistory, draft: Draft) -> list[TokenHistory]:
        """Return what the logits processors know before each token of a draft, and after the last one.

        Args:
            history: Before the draft.
            draft: The draft.
        """
        found = [history]
        for index in range(self.num_tokens):
            found.append(found[-1].append(draft.tokens_BK[:, index], self._processors.special))
        return found

    def _propose(self, draft: Draft, sampling: SamplingParams | None) -> Draft:
        """Add the next token to every draft that has not ended."""
        index, goes_on_B, log_q_BKV = draft.count, draft.goes_on_B, draft.log_q_BKV
        logits_BV = process_logits(self._processors, self._logits(draft.hidden_BD), draft.history)
        if sampling is None or log_q_BKV is None:
            token_B = logits_BV.argmax(axis=1).astype(jnp.int32)
        else:
            log_q_BV = sampling.log_probabilities(logits_BV)
            token_B = sampling.sample(log_q_BV, draft.history.count, DRAFT)
            log_q_BKV = log_q_BKV.at[:, index].set(jnp.where(goes_on_B[:, None], log_q_BV, -jnp.inf))
        logprob_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)[:, 0]
        confidence_B = draft.confidence_B + logprob_B - jax.nn.logsumexp(logits_BV, axis=1)
        is_unsure_B = confidence_B < math.log(DRAFT_CONFIDENCE_THRESHOLD)
        is_last_B = is_unsure_B | (token_B == self._processors.special.eot)
        return dataclasses.replace(
            draft,
            count=index + 1,
            history=draft.history.append(token_B, self._processors.special),
            confidence_B=jnp.where(goes_on_B & ~is_last_B, confidence_B, -jnp.inf),
            tokens_BK=draft.tokens_BK.at[:, index].set(jnp.where(goes_on_B, token_B, -1)),
            log_q_BKV=log_q_BKV,
        )

    def _logits(self, hidden_BD: Float[Array, "B D"]) -> Float[Array, "B V"]:
        """Return logits, which are minus infinity outside the part that drafts consist of."""
        logits_BN = project_onto_tokens(hidden_BD[:, None], self._embedding_ND)[:, 0]
        rows, special = len(hidden_BD), self._processors.special
        text, others = logits_BN[:, : self._text], logits_BN[:, self._text :]
        vocabulary = self._student.config.vocab_size
        before = jnp.full((rows, special.eot - self._text), -jnp.inf)
        behind = jnp.full((rows, vocabulary - special.eot - others.shape[1]), -jnp.inf)
        return jnp.concatenate([text, before, others, behind], axis=1)


def pick(values: Array, index_B: Int[Array, " B"]) -> Array:
    """Return one entry of the second axis for every row."""
    index = index_B.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.take_along_axis(values, index, axis=1)[:, 0]
