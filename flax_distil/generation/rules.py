"""Which tokens may come next: suppression and the timestamp grammar, as masks on the device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core import Array, Bool, Float, Int
from flax_distil.text import GenerationSettings, SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingRules:
    """What a search may emit; hashable, so a static argument of a jitted search.

    Attributes:
        special: ids of the vocabulary.
        suppress_tokens: never emitted.
        begin_suppress_tokens: not emitted as the first token.
        return_timestamps: impose the timestamp grammar; otherwise timestamps are
            left to the prompt's ``<|notimestamps|>``.
        max_initial_timestamp_index: the first timestamp is at most this many steps of 0.02 s.

    Source: arXiv 2212.04356, section 4.5 and its released decoding code; RECIPE 6.
    """

    special: SpecialTokens
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    return_timestamps: bool = False
    max_initial_timestamp_index: int | None = 50

    @classmethod
    def from_settings(
        cls, settings: GenerationSettings, special: SpecialTokens, *, return_timestamps: bool = False
    ) -> "DecodingRules":
        """Take the suppressed tokens and the first-timestamp limit from a checkpoint's settings."""
        return cls(
            special=special,
            suppress_tokens=tuple(settings.suppress_tokens),
            begin_suppress_tokens=tuple(settings.begin_suppress_tokens),
            return_timestamps=return_timestamps,
            max_initial_timestamp_index=settings.max_initial_timestamp_index,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EmittedContext:
    """What the rules must know of the tokens a row has emitted so far.

    Attributes:
        count: tokens emitted, by all rows or by each.
        last_B: the last token, -1 before the first.
        before_last_B: the one before it, -1 before the second.
        timestamp_B: the last timestamp emitted, -1 before the first.
    """

    count: Int[Array, ""] | Int[Array, " B"]
    last_B: Int[Array, " B"]
    before_last_B: Int[Array, " B"]
    timestamp_B: Int[Array, " B"]

    @classmethod
    def empty(cls, rows: int) -> "EmittedContext":
        """Return the context before anything is emitted."""
        none = jnp.full(rows, -1, jnp.int32)
        return cls(jnp.zeros((), jnp.int32), none, none, none)

    @property
    def at_begin(self) -> Bool[Array, "#B 1"]:
        """Whether a row has emitted nothing."""
        return self.count.reshape(-1, 1) == 0

    def followed_by(self, token_B: Int[Array, " B"], timestamp_begin: int) -> "EmittedContext":
        """Return the context after one more token of every row."""
        timestamp_B = jnp.where(token_B >= timestamp_begin, token_B, self.timestamp_B)
        return EmittedContext(self.count + 1, token_B, self.last_B, timestamp_B)


def apply_rules(
    rules: DecodingRules, logits_BV: Float[Array, "B V"], context: EmittedContext
) -> Float[Array, "B V"]:
    """Set the logits of tokens that may not come next to minus infinity.

    With ``return_timestamps``: timestamps come in pairs (end of a segment, start of the
    next) except before the end of text, never decrease, a segment is never empty, the
    first token is a timestamp within ``max_initial_timestamp_index``, and a timestamp is
    forced when all of them together are more likely than any single text token.
    """
    vocabulary = logits_BV.shape[1]
    logits_BV = jnp.where(_contains(rules.suppress_tokens, vocabulary), -jnp.inf, logits_BV)
    blocked_first_V = _contains(rules.begin_suppress_tokens, vocabulary)
    logits_BV = jnp.where(context.at_begin & blocked_first_V, -jnp.inf, logits_BV)
    if not rules.return_timestamps:
        return logits_BV
    logits_BV = jnp.where(_timestamp_grammar(rules, context, vocabulary), logits_BV, -jnp.inf)
    return _prefer_timestamps(logits_BV, rules.special.timestamp_begin)


def _contains(tokens: tuple[int, ...], vocabulary: int) -> Bool[np.ndarray, " V"]:
    mask = np.zeros(vocabulary, bool)
    mask[list(tokens)] = True
    return mask


def _timestamp_grammar(rules: DecodingRules, context: EmittedContext, vocabulary: int) -> Bool[Array, "B V"]:
    """Return True where the order of timestamps allows a token."""
    special = rules.special
    token_V = jnp.arange(vocabulary)
    is_timestamp_V = token_V >= special.timestamp_begin
    last_was_B = context.last_B >= special.timestamp_begin
    # Before the second token the one before the last counts as a timestamp: text must follow.
    before_was_B = (context.before_last_B >= special.timestamp_begin) | (context.count < 2)
    opened_B, closed_B = last_was_B & before_was_B, last_was_B & ~before_was_B
    allowed_BV = ~(opened_B[:, None] & is_timestamp_V) & ~(closed_B[:, None] & (token_V < special.eot))
    # The start of the next segment may equal the end of this one; any other timestamp is later.
    earliest_B = jnp.where(closed_B, context.timestamp_B, context.timestamp_B + 1)
    allowed_BV &= ~is_timestamp_V | (token_V >= earliest_B[:, None])
    first_V = is_timestamp_V
    if rules.max_initial_timestamp_index is not None:
        first_V &= token_V <= special.timestamp_begin + rules.max_initial_timestamp_index
    allowed_BV = jnp.where(context.at_begin, first_V, allowed_BV)
    return allowed_BV & (token_V != special.no_timestamps)


def _prefer_timestamps(logits_BV: Float[Array, "B V"], timestamp_begin: int) -> Float[Array, "B V"]:
    """Force a timestamp where their total probability exceeds that of every text token."""
    all_timestamps_B = jax.nn.logsumexp(logits_BV[:, timestamp_begin:], axis=1)
    best_text_B = logits_BV[:, :timestamp_begin].max(axis=1)
    is_text_V = jnp.arange(logits_BV.shape[1]) < timestamp_begin
    return jnp.where((all_timestamps_B > best_text_B)[:, None] & is_text_V, -jnp.inf, logits_BV)
