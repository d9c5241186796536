"""A student drafts the next tokens of every row, over the part of the vocabulary that is said most."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core import Array, Float, Int
from flax_distil.generation.options import SearchOptions
from flax_distil.generation.rules import DecodingRules, EmittedContext, apply_rules
from flax_distil.generation.sampling import warp_scores
from flax_distil.model import Decoder, DecoderCache

DRAFT_TEXT_TOKENS = 16384
"""Drafts are made of the first text tokens alone: ids are in the order in which byte pairs were merged,
frequent ones first. Of the bundled prompts they are 93 % (the first 8192: 85 %), of other languages 67 to
83 % of one long sentence. Projecting on all would take most of a step of a 2-layer student of base.
"""

DRAFT, ACCEPT, CORRECT = range(3)
"""What a random number is for."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draft:
    """What a student proposes.

    Attributes:
        tokens_BK: one after the other.
        contexts: what the rules know before each of them and after the last, K + 1.
        log_q_BKV: natural logarithm of the probabilities they were drawn from; None of the likeliest tokens.
        cache: of the student, with the tokens but the last.
    """

    tokens_BK: Int[Array, "B K"]
    contexts: list[EmittedContext]
    log_q_BKV: Float[Array, "B K V"] | None
    cache: DecoderCache


@dataclasses.dataclass(frozen=True)
class Draws:
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
        warped_BV = warp_scores(scores_BV, jnp.where(is_drawn_B, self.temperature_B, 1.0), self.options)
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


class Drafter:
    """A student's decoder with what its loop reads, taken out of its weights once."""

    def __init__(self, student: Decoder, rules: DecodingRules, num_assistant_tokens: int):
        self._student, self._rules, self._tokens = student, rules, num_assistant_tokens
        self._layers: list[Any] = student.unrolled()
        special = rules.special
        self._text = min(DRAFT_TEXT_TOKENS, special.eot)
        last = student.config.vocab_size if rules.return_timestamps else special.eot + 1
        ids_N = jnp.concatenate([jnp.arange(self._text), jnp.arange(special.eot, last)])
        self._embedding_ND = student.output_embedding(ids_N)

    def prefill(
        self, prompt_BP: Int[Array, "B P"], states_BSD: Float[Array, "B S D"], slots: int
    ) -> DecoderCache:
        """Return a cache that holds the prompts."""
        cache = self._student.init_cache(states_BSD, slots)
        start_B = jnp.zeros(len(prompt_BP), jnp.int32)
        return self._student.extend(self._layers, prompt_BP, cache, start_B)[1]

    def draft(
        self,
        cache: DecoderCache,
        recent_B2: Int[Array, "B 2"],
        position_B: Int[Array, " B"],
        context: EmittedContext,
        draws: Draws | None,
    ) -> Draft:
        """Propose the next tokens of every row.

        Args:
            cache: whatever was drafted last, all tokens before the last two are in it.
            recent_B2: the last two tokens.
            position_B: of the last one.
            context: of the rules.
            draws: None for the likeliest tokens.
        """
        # The last accepted draft was never read by the student: both are.
        start_B = jnp.maximum(position_B - 1, 0)
        recent_B2 = jnp.where(position_B[:, None] > 0, recent_B2, recent_B2[:, 1:])
        hidden_B2D, cache = self._student.extend(self._layers, recent_B2, cache, start_B)
        index_B = position_B - start_B
        hidden_BD = jnp.take_along_axis(hidden_B2D, index_B[:, None, None], axis=1)[:, 0]

        def step(carry: tuple[Any, ...], place: Array) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            cache, token_B, context = carry
            hidden_B1D, cache = self._student.extend(
                self._layers, token_B[:, None], cache, position_B + place
            )
            token_B, log_q_BV = self._propose(hidden_B1D[:, 0], context, draws)
            return (cache, token_B, self._after(context, token_B)), (token_B, log_q_BV)

        first_B, log_q_BV = self._propose(hidden_BD, context, draws)
        carry = cache, first_B, self._after(context, first_B)
        (cache, *_), (rest_JB, log_q_JBV) = jax.lax.scan(step, carry, jnp.arange(1, self._tokens))
        tokens_BK = jnp.concatenate([first_B[None], rest_JB]).T
        contexts = [context]
        for place in range(self._tokens):
            contexts.append(self._after(contexts[-1], tokens_BK[:, place]))
        if log_q_BV is None:
            return Draft(tokens_BK, contexts, None, cache)
        log_q_BKV = jnp.concatenate([log_q_BV[None], log_q_JBV]).swapaxes(0, 1)
        return Draft(tokens_BK, contexts, log_q_BKV, cache)

    def _after(self, context: EmittedContext, token_B: Int[Array, " B"]) -> EmittedContext:
        return context.followed_by(token_B, self._rules.special.timestamp_begin)

    def _propose(
        self, hidden_BD: Float[Array, "B D"], context: EmittedContext, draws: Draws | None
    ) -> tuple[Int[Array, " B"], Float[Array, "B V"] | None]:
        """Return the next token of every row, and what it was drawn from."""
        scores_BV = apply_rules(self._rules, self._logits(hidden_BD), context)
        if draws is None:
            return scores_BV.argmax(axis=1).astype(jnp.int32), None
        log_q_BV = draws.log_probabilities(scores_BV)
        return draws.tokens(log_q_BV, context.count, DRAFT), log_q_BV

    def _logits(self, hidden_BD: Float[Array, "B D"]) -> Float[Array, "B V"]:
        """Return logits, minus infinity outside the part that drafts are made of."""
        logits_BN = jnp.einsum("bd,nd->bn", hidden_BD, self._embedding_ND, preferred_element_type=jnp.float32)
        rows, special = len(hidden_BD), self._rules.special
        text, others = logits_BN[:, : self._text], logits_BN[:, self._text :]
        vocabulary = self._student.config.vocab_size
        before = jnp.full((rows, special.eot - self._text), -jnp.inf)
        behind = jnp.full((rows, vocabulary - special.eot - others.shape[1]), -jnp.inf)
        return jnp.concatenate([text, before, others, behind], axis=1)
