"""Sequences that share a prompt: one per row in greedy search, several beams or samples otherwise.

The cache of a row holds its prompt once, and behind it, for every token emitted, a slot for each of its
K sequences::

    | prompt, padded to P slots | token 0: k = 0 … K-1 | token 1: k = 0 … K-1 | …

A sequence is a *path*: which of the K slots holds its token 0, its token 1, and so on. A beam that splits
or dies changes paths, a number per token, and moves no keys or values. The price: a query is compared
with the slots of all K sequences, and sees those on its path.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory
from flax_distil.model.cache import DecoderCache
from flax_distil.model.decoder import Decoder
from flax_distil.text.special_tokens import SpecialTokens

INITIAL_CACHE_LENGTH = 128
"""A search starts with a cache for prompt and tokens of this length, which short recordings never fill.

Every step reads the whole cache; the few rows that say more go on with a full one.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """K sequences behind the prompt of every row.

    Attributes:
        cache: P slots of the prompt, then K for each token.
        history: what the processors know of the B·K sequences, row by row.
        path_BKT: which of the K slots holds each token of a sequence; -1 where there is none yet.
        tokens_BTK: what was emitted, by slot.
        logprobs_BTK: its log-probability.
    """

    cache: DecoderCache
    history: TokenHistory
    path_BKT: Int[Array, "B K T"]
    tokens_BTK: Int[Array, "B T K"]
    logprobs_BTK: Float[Array, "B T K"]

    def followed_by(
        self,
        token_BK: Int[Array, "B K"],
        logprob_BK: Float[Array, "B K"],
        special: SpecialTokens,
        *,
        parent_BK: Int[Array, "B K"] | None = None,
    ) -> "Hypotheses":
        """Return the sequences after one more token each, of which the cache knows nothing yet.

        Args:
            token_BK: the tokens.
            logprob_BK: their log-probabilities.
            special: static; ids of the vocabulary.
            parent_BK: which sequence each one continues; by default itself.
        """
        count, path_BKT, history = self.history.count, self.path_BKT, self.history
        if parent_BK is not None:
            path_BKT = jnp.take_along_axis(path_BKT, parent_BK[:, :, None], axis=1)
            history = _of_parents(history, parent_BK)
        own_K = jnp.arange(token_BK.shape[1])
        return Hypotheses(
            cache=self.cache,
            history=history.followed_by(token_BK.reshape(-1), special),
            path_BKT=path_BKT.at[:, :, count].set(own_K),
            tokens_BTK=self.tokens_BTK.at[:, count].set(token_BK),
            logprobs_BTK=self.logprobs_BTK.at[:, count].set(logprob_BK),
        )

    def along(
        self, path_BT: Int[Array, "B T"], length_B: Int[Array, " B"], end: int
    ) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
        """Return tokens and log-probabilities along a path of each row, padded with ``end`` and 0."""

        def pick(slots_BTK: Array) -> Array:
            return jnp.take_along_axis(slots_BTK, jnp.maximum(path_BT, 0)[:, :, None], axis=2)[:, :, 0]

        inside_BT = jnp.arange(path_BT.shape[1]) < length_B[:, None]
        tokens_BT = jnp.where(inside_BT, pick(self.tokens_BTK), end)
        return tokens_BT, jnp.where(inside_BT, pick(self.logprobs_BTK), 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
    """What a search carries from step to step; searches add to it.

    Attributes:
        hypotheses: the sequences.
        done: rows or sequences that have ended.
    """

    hypotheses: Hypotheses
    done: Bool[Array, "..."]


State = TypeVar("State", bound=SamplingState)


def _of_parents(history: TokenHistory, parent_BK: Int[Array, "B K"]) -> TokenHistory:
    """Return the histories of the parents; all sequences have emitted the same number of tokens."""

    def gather(flat: Array) -> Array:
        if not flat.ndim:
            return flat
        rest = flat.shape[1:]
        index = parent_BK.reshape(*parent_BK.shape, *[1] * len(rest))
        return jnp.take_along_axis(flat.reshape(*parent_BK.shape, *rest), index, axis=1).reshape(-1, *rest)

    return jax.tree.map(gather, history)


class DecodeLoop:
    """Reads the prompts of a batch, then runs the decoder on K sequences behind each; within one trace.

    Attributes:
        limit_B: most tokens of each row; 0 of idle ones.
        no_speech_prob_B: probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
        first_logits_BV: of the first token.
        first_history: what the processors know before it, of each row.
        first: sequences before it.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder_out_BSD: Float[Array, "B S D"],
        prompt_BP: Int[Array, "B P"],
        prompt_length_B: Int[Array, " B"],
        *,
        processors: LogitsProcessors,
        hypotheses: int,
        max_new_tokens: int,
        limit_B: Int[Array, " B"] | None,
        prefix_length_B: Int[Array, " B"] | None = None,
    ):
        """Run the prompts; arguments as those of ``search``, with ``hypotheses`` sequences per row.

        Raises:
            ValueError: if the padded prompts leave no position for a token.
        """
        rows, prompt_slots = prompt_BP.shape
        special = processors.special
        self.limit_B = token_limits(decoder, prompt_BP, prompt_length_B, max_new_tokens, limit_B)
        self._decoder, self._layers, self._branches = decoder, decoder.unroll_layers(), hypotheses
        self._prompt_length_B, self._prompt_slots = prompt_length_B, prompt_slots
        self._end, self._max_new_tokens = special.eot, max_new_tokens
        self._few_tokens = min(
            max_new_tokens, max(INITIAL_CACHE_LENGTH - prompt_slots, INITIAL_CACHE_LENGTH // 2)
        )
        cache = decoder.init_cache(encoder_out_BSD, self._slots(self._few_tokens))
        hidden_BPD, cache = decoder.decode(self._layers, prompt_BP, cache, jnp.zeros((), jnp.int32))
        start_B = (prompt_BP == special.sot).argmax(axis=1)
        picked = jnp.stack([start_B, prompt_length_B - 1], axis=1)[:, :, None]
        logits_B2V = decoder.logits(jnp.take_along_axis(hidden_BPD, picked, axis=1))
        self.no_speech_prob_B = jax.nn.softmax(logits_B2V[:, 0])[:, special.no_speech]
        self.first_logits_BV = logits_B2V[:, 1]
        self.first_history = TokenHistory.after_prompts(
            processors, prompt_BP, prompt_length_B, prefix_length_B, max_new_tokens=max_new_tokens
        )
        self.first = Hypotheses(
            cache=cache,
            history=jax.tree.map(
                lambda leaf: jnp.repeat(leaf, hypotheses, axis=0) if leaf.ndim else leaf, self.first_history
            ),
            path_BKT=jnp.full((rows, hypotheses, max_new_tokens), -1, jnp.int32),
            tokens_BTK=jnp.full((rows, max_new_tokens, hypotheses), self._end, jnp.int32),
            logprobs_BTK=jnp.zeros((rows, max_new_tokens, hypotheses), jnp.float32),
        )

    def run(self, state: State, choose: Callable[[State, Float[Array, "B K V"]], State]) -> State:
        """Run the decoder and choose tokens in turn until everything is done.

        Args:
            state: after its first token was chosen.
            choose: takes the logits of the next tokens and returns the state after them.

        Returns:
            The last state, without the keys and values of its cache.
        """

        def step(state: State) -> State:
            hypotheses, logits_BKV = self._logits(state.hypotheses)
            return choose(dataclasses.replace(state, hypotheses=hypotheses), logits_BKV)

        def up_to(tokens: int, state: State) -> State:
            """Go on while something has not ended and a cache of so many tokens has room."""
            return jax.lax.while_loop(
                lambda state: ~state.done.all() & (state.hypotheses.history.count <= tokens), step, state
            )

        def resized(state: State, tokens: int | None) -> State:
            cache = state.hypotheses.cache.resized(None if tokens is None else self._slots(tokens))
            return dataclasses.replace(state, hypotheses=dataclasses.replace(state.hypotheses, cache=cache))

        return grow_cache_and_continue(
            state,
            up_to,
            resized,
            sizes=(self._few_tokens, self._max_new_tokens),
            is_done=lambda state: state.done.all(),
        )

    def _slots(self, tokens: int) -> int:
        return self._prompt_slots + self._branches * tokens

    def _logits(self, hypotheses: Hypotheses) -> tuple[Hypotheses, Float[Array, "B K V"]]:
        """Run the decoder on the last tokens of all sequences."""
        column = hypotheses.history.count - 1
        token_BK = jax.lax.dynamic_index_in_dim(hypotheses.tokens_BTK, column, axis=1, keepdims=False)
        position_B = self._prompt_length_B + column
        hidden_BKD, cache = self._decoder.decode_beams(
            self._layers,
            token_BK,
            hypotheses.cache,
            self._prompt_slots + self._branches * column,
            position_B=jnp.minimum(position_B, self._decoder.config.max_target_positions - 1),
            visible_BKC=self._visible(hypotheses),
        )
        return dataclasses.replace(hypotheses, cache=cache), self._decoder.logits(hidden_BKD)

    def _visible(self, hypotheses: Hypotheses) -> Bool[Array, "B K C"]:
        """Return True for the prompt and the slots on a sequence's path."""
        rows, count, _ = hypotheses.path_BKT.shape
        tokens = (hypotheses.cache.slots - self._prompt_slots) // count
        on_path = hypotheses.path_BKT[:, :, :tokens, None] == jnp.arange(count)
        in_prompt_BP = jnp.arange(self._prompt_slots) < self._prompt_length_B[:, None]
        in_prompt_BKP = jnp.broadcast_to(in_prompt_BP[:, None], (rows, count, self._prompt_slots))
        return jnp.concatenate([in_prompt_BKP, on_path.reshape(rows, count, -1)], axis=2)


def grow_cache_and_continue(
    state: Any,
    run: Callable[[int, Any], Any],
    resized: Callable[[Any, int | None], Any],
    *,
    sizes: tuple[int, int],
    is_done: Callable[[Any], Bool[Array, ""]],
) -> Any:
    """Run a search with a small cache, and what has not ended then with a large one.

    Args:
        state: of the search, with the small cache.
        run: runs until all has ended or a cache of a size is full.
        resized: returns a state with a cache of a size; of None, without keys and values.
        sizes: of the small cache and the large one.
        is_done: whether all has ended.

    Returns:
        The last state, without keys and values.
    """
    small, large = sizes

    def end(state: Any) -> Any:
        return resized(state, None)

    def go_on(state: Any) -> Any:
        return end(run(large, resized(state, large)))

    state = run(small, state)
    return end(state) if small == large else jax.lax.cond(is_done(state), end, go_on, state)


def token_limits(
    decoder: Decoder,
    prompt_BP: Int[Array, "B P"],
    prompt_length_B: Int[Array, " B"],
    max_new_tokens: int,
    limit_B: Int[Array, " B"] | None,
) -> Int[Array, " B"]:
    """Return how many tokens each row may have: as asked, and as its prompt leaves room for.

    Raises:
        ValueError: if the padded prompts leave no position for a token.
    """
    prompt_slots, positions = prompt_BP.shape[1], decoder.config.max_target_positions
    if prompt_slots >= positions:
        raise ValueError(f"{prompt_slots} prompt tokens leave none of the model's {positions} positions")
    room_B = jnp.minimum(positions - prompt_length_B, max_new_tokens)
    return room_B if limit_B is None else jnp.minimum(limit_B, room_B)


def rank_scores(
    total: Float[Array, "..."], length: Int[Array, "..."], length_penalty: float | None
) -> Float[Array, "..."]:
    """Return what sequences are ranked by: log-probability over length, or over Google's penalty.

    Args:
        total: sums of log-probabilities.
        length: tokens, end-of-text left out.
        length_penalty: see ``SearchOptions``.

    Source: openai/whisper; arXiv 1609.08144, section 7.
    """
    if length_penalty is None:
        return total / jnp.maximum(length, 1)
    return total / ((5.0 + length) / 6.0) ** length_penalty
