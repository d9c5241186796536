"""Which tokens may come next: suppression, repetition and the timestamp grammar, on the device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.repetition import ban_repeated_ngrams, penalize_repetition
from flax_distil.decoding.types import GenerateInputs
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsProcessors:
    """Which tokens may be emitted; hashable, so that it can be a static argument of a jitted function.

    Attributes:
        special: Ids of the vocabulary.
        suppress_tokens: Tokens that are never emitted.
        begin_suppress_tokens: Tokens that are not emitted first.
        return_timestamps: Impose the timestamp grammar; otherwise timestamps are left to the prompt's
            ``<|notimestamps|>``.
        max_initial_timestamp_index: The first timestamp is at most this many steps of 0.02 s.
        repetition_penalty: Logits of tokens that were emitted before are divided by this where they are
            positive, and multiplied where they are negative; 1 changes nothing.
        no_repeat_ngram_size: No run of this many tokens is emitted twice; 0 allows all.

    Source: arXiv 2212.04356, section 4.5; ``SuppressTokens``, ``SuppressBlank`` and ``ApplyTimestampRules``
    of openai/whisper.
    """

    special: SpecialTokens
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    return_timestamps: bool = False
    max_initial_timestamp_index: int | None = 50
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    @classmethod
    def from_settings(
        cls, settings: GenerationSettings, special: SpecialTokens, *, return_timestamps: bool = False
    ) -> "LogitsProcessors":
        """Take the suppressed tokens and the first-timestamp limit from a checkpoint's settings."""
        return cls(
            special=special,
            suppress_tokens=tuple(settings.suppress_tokens),
            begin_suppress_tokens=tuple(settings.begin_suppress_tokens),
            return_timestamps=return_timestamps,
            max_initial_timestamp_index=settings.max_initial_timestamp_index,
        )

    @property
    def counts_repetitions(self) -> bool:
        """Whether all tokens emitted before must be known."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenHistory:
    """What the logits processors must know of the tokens that each row has emitted so far.

    The forced beginning of a transcript counts as emitted, except that the first token behind it still counts
    as the first.

    Attributes:
        count: Number of tokens found, one for all rows or one for each.
        last_B: The last token; -1 before the first.
        before_last_B: The token before it; -1 before the second.
        timestamp_B: The last timestamp emitted; -1 before the first.
        given_B: Number of tokens of the forced beginning; None where no row has one.
        tokens_BT: All tokens, -1 behind the last; None where no processor needs them.
    """

    count: Int[Array, ""] | Int[Array, " B"]
    last_B: Int[Array, " B"]
    before_last_B: Int[Array, " B"]
    timestamp_B: Int[Array, " B"]
    given_B: Int[Array, " B"] | None = None
    tokens_BT: Int[Array, "B T"] | None = None

    @classmethod
    def empty(cls, rows: int, *, room: int | None = None) -> "TokenHistory":
        """Return the history before anything is emitted; with ``room``, so many tokens are remembered."""
        none = jnp.full(rows, -1, jnp.int32)
        tokens_BT = None if room is None else jnp.full((rows, room), -1, jnp.int32)
        return cls(jnp.zeros((), jnp.int32), none, none, none, tokens_BT=tokens_BT)

    @classmethod
    def after_prompts(
        cls, processors: LogitsProcessors, inputs: GenerateInputs, *, max_new_tokens: int
    ) -> "TokenHistory":
        """Return the history before the first token is found.

        Args:
            processors: Which tokens may be emitted.
            inputs: The batch: its prompts, and the forced beginnings of transcripts at their ends.
            max_new_tokens: Maximum number of tokens that are found.
        """
        prompt_BP, prefix_length_B = inputs.prompt_BP, inputs.prefix_length_B
        rows, slots = prompt_BP.shape
        room = max_new_tokens + (0 if prefix_length_B is None else slots)
        history = cls.empty(rows, room=room if processors.counts_repetitions else None)
        if prefix_length_B is None:
            return history
        index_P = jnp.arange(slots)
        source_BP = index_P + (inputs.prompt_length_B - prefix_length_B)[:, None]
        prefix_BP = jnp.take_along_axis(prompt_BP, jnp.minimum(source_BP, slots - 1), axis=1)
        prefix_BP = jnp.where(index_P < prefix_length_B[:, None], prefix_BP, -1)
        is_timestamp_BP = _is_timestamp(processors.special, prefix_BP)
        last_B1 = jnp.where(is_timestamp_BP, index_P, -1).max(axis=1, keepdims=True)
        tokens_BT = history.tokens_BT
        return TokenHistory(
            count=history.count,
            last_B=_pick(prefix_BP, prefix_length_B[:, None] - 1),
            before_last_B=_pick(prefix_BP, prefix_length_B[:, None] - 2),
            timestamp_B=_pick(prefix_BP, last_B1),
            given_B=prefix_length_B,
            tokens_BT=None if tokens_BT is None else tokens_BT.at[:, :slots].set(prefix_BP),
        )

    @property
    def is_empty(self) -> Bool[Array, "#B 1"]:
        """Whether no token of a row was found yet."""
        return self.count.reshape(-1, 1) == 0

    @property
    def length(self) -> Int[Array, ""] | Int[Array, " B"]:
        """Number of tokens emitted, including those of the forced beginning."""
        return self.count if self.given_B is None else self.count + self.given_B

    def append(self, token_B: Int[Array, " B"], special: SpecialTokens) -> "TokenHistory":
        """Return the history after one more token of every row."""
        timestamp_B = jnp.where(_is_timestamp(special, token_B), token_B, self.timestamp_B)
        tokens_BT = self.tokens_BT
        if tokens_BT is not None:
            index_B = jnp.broadcast_to(self.length, token_B.shape)
            tokens_BT = tokens_BT.at[jnp.arange(len(token_B)), index_B].set(token_B, mode="drop")
        return TokenHistory(self.count + 1, token_B, self.last_B, timestamp_B, self.given_B, tokens_BT)


def process_logits(
    processors: LogitsProcessors, logits_BV: Float[Array, "B V"], history: TokenHistory
) -> Float[Array, "B V"]:
    """Set the logits of tokens that may not come next to minus infinity.

    With ``return_timestamps``, timestamps come in pairs (end of a segment, start of the next) except before
    the end of text. They never decrease, and a segment is never empty. The first token is a timestamp within
    ``max_initial_timestamp_index``. A timestamp is forced when all timestamps together are more likely than
    any single text token.
    """
    vocabulary = logits_BV.shape[1]
    if history.tokens_BT is not None:
        length_B = jnp.broadcast_to(history.length, history.last_B.shape)
        if processors.repetition_penalty != 1:
            logits_BV = penalize_repetition(logits_BV, history.tokens_BT, processors.repetition_penalty)
        if processors.no_repeat_ngram_size:
            logits_BV = ban_repeated_ngrams(
                logits_BV, history.tokens_BT, length_B, processors.no_repeat_ngram_size
            )
    logits_BV = jnp.where(_contains(processors.suppress_tokens, vocabulary), -jnp.inf, logits_BV)
    blocked_first_V = _contains(processors.begin_suppress_tokens, vocabulary)
    logits_BV = jnp.where(history.is_empty & blocked_first_V, -jnp.inf, logits_BV)
    if not processors.return_timestamps:
        return logits_BV
    logits_BV = jnp.where(_timestamp_grammar(processors, history, vocabulary), logits_BV, -jnp.inf)
    return _prefer_timestamps(logits_BV, processors.special)


def _contains(tokens: tuple[int, ...], vocabulary: int) -> Bool[np.ndarray, " V"]:
    mask = np.zeros(vocabulary, bool)
    mask[list(tokens)] = True
    return mask


def _is_timestamp(special: SpecialTokens, token: Int[Array, "..."]) -> Bool[Array, "..."]:
    return (token >= special.timestamp_begin) & (token < special.timestamp_end)


def _pick(values_BP: Int[Array, "B P"], index_B1: Int[Array, "B 1"]) -> Int[Array, " B"]:
    """Return one entry of every row, -1 where its index is negative."""
    value_B1 = jnp.take_along_axis(values_BP, jnp.maximum(index_B1, 0), axis=1)
    return jnp.where(index_B1 >= 0, value_B1, -1)[:, 0]


def _timestamp_grammar(
    processors: LogitsProcessors, history: TokenHistory, vocabulary: int
) -> Bool[Array, "B V"]:
    """Return True where the order of timestamps allows a token."""
    special, token_V = processors.special, jnp.arange(vocabulary)
    is_timestamp_V = _is_timestamp(special, token_V)
    is_text_V = (token_V < special.eot) | (token_V >= special.timestamp_end)
    last_was_B = _is_timestamp(special, history.last_B)
    # Before the second token, the token before the last counts as a timestamp, so text must follow.
    before_was_B = _is_timestamp(special, history.before_last_B) | (history.length < 2)
    opened_B, closed_B = last_was_B & before_was_B, last_was_B & ~before_was_B
    allowed_BV = ~(opened_B[:, None] & is_timestamp_V) & ~(closed_B[:, None] & is_text_V)
    # The start of the next segment may equal the end of this one. Any other timestamp must be later.
    earliest_B = jnp.where(closed_B, history.timestamp_B, history.timestamp_B + 1)
    allowed_BV &= ~is_timestamp_V | (token_V >= earliest_B[:, None])
    first_V = is_timestamp_V
    if processors.max_initial_timestamp_index is not None:
        first_V &= token_V <= special.timestamp_begin + processors.max_initial_timestamp_index
    nothing_B1 = jnp.reshape(history.length, (-1, 1)) == 0
    allowed_BV = jnp.where(nothing_B1, first_V, allowed_BV)
    return allowed_BV & (token_V != special.no_timestamps)


def _prefer_timestamps(logits_BV: Float[Array, "B V"], special: SpecialTokens) -> Float[Array, "B V"]:
    """Force a timestamp where their total probability exceeds that of every text token."""
    begin, end = special.timestamp_begin, special.timestamp_end
    all_timestamps_B = jax.nn.logsumexp(logits_BV[:, begin:end], axis=1)
    is_timestamp_V = _is_timestamp(special, jnp.arange(logits_BV.shape[1]))
    best_text_B = jnp.where(is_timestamp_V, -jnp.inf, logits_BV).max(axis=1)
    is_forced_B1 = (all_timestamps_B > best_text_B)[:, None]
    return jnp.where(is_forced_B1 & ~is_timestamp_V, -jnp.inf, logits_BV)
