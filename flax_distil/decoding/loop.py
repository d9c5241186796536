"""The decode loop: read the prompts of a batch, then emit a token per step until every row has ended.

::

    generate ── prefill ──> logits of the first token ──> update
                  then, until everything is done:
                  decode the last tokens ──> logits of the next ones ──> update

``update`` turns logits into tokens. It is :class:`GreedyOrSample` or :class:`BeamSearch`, and both apply
the logits processors to the logits first.
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float
from flax_distil.decoding.beam import BeamSearch
from flax_distil.decoding.greedy import GreedyOrSample
from flax_distil.decoding.hypotheses import Hypotheses, SamplingState
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs, GenerateOutput
from flax_distil.model.decoder import Decoder

INITIAL_CACHE_LENGTH = 128
"""Length of the first cache, for prompt and tokens. Short recordings never fill it.

Every step reads the whole cache, so the few rows with more tokens go on with a full one.
"""


@runtime_checkable
class Strategy(Protocol):
    """Turns logits into tokens: greedy search, sampling or beam search.

    Attributes:
        num_hypotheses: Number of hypotheses per row.
    """

    num_hypotheses: int

    def start(self, hypotheses: Hypotheses) -> Any:
        """Return the state before the first token."""

    def update(self, state: Any, logits: Array) -> Any:
        """Choose the next tokens, from logits [B, K, V]; the first ones from logits [B, V]."""

    def finalize(self, state: Any, no_speech_prob_B: Float[Array, " B"]) -> GenerateOutput:
        """Return the best hypothesis of every row."""


def generate(
    decoder: Decoder,
    inputs: GenerateInputs,
    *,
    processors: LogitsProcessors,
    options: SearchOptions,
    max_new_tokens: int,
) -> GenerateOutput:
    """Emit the tokens of every row until all rows have ended.

    Args:
        decoder: Bound to its parameters.
        inputs: The batch.
        processors: Which tokens may be emitted.
        options: How tokens are chosen.
        max_new_tokens: Maximum number of tokens per row; a prompt may leave room for fewer.

    Raises:
        ValueError: If the padded prompts leave no position for a token.
    """
    limit_B = inputs.token_limits(decoder.config.max_target_positions, max_new_tokens)
    is_beam_search = options.num_beams > 1 and inputs.temperature_B is None
    strategy: Strategy = (BeamSearch if is_beam_search else GreedyOrSample)(
        inputs, limit_B, processors, options
    )
    loop = DecodeLoop(decoder, inputs, processors, strategy, max_new_tokens=max_new_tokens)
    state = strategy.update(strategy.start(loop.hypotheses), loop.first_logits_BV)
    return strategy.finalize(grow_cache_and_continue(loop, state), loop.no_speech_prob_B)


class DecodeLoop:
    """Runs the decoder on the hypotheses of a batch, within one trace.

    Attributes:
        hypotheses: Before the first token.
        first_logits_BV: Logits of the first token.
        no_speech_prob_B: Probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
        sizes: Number of tokens that the small cache and the large one have room for.
    """

    def __init__(
        self,
        decoder: Decoder,
        inputs: GenerateInputs,
        processors: LogitsProcessors,
        strategy: Strategy,
        *,
        max_new_tokens: int,
    ):
        """Read the prompts ("prefill").

        Args:
            decoder: Bound to its parameters.
            inputs: The batch.
            processors: Which tokens may be emitted.
            strategy: Turns logits into tokens.
            max_new_tokens: Maximum number of tokens per row.
        """
        prompt_BP, special = inputs.prompt_BP, processors.special
        self._decoder, self._layers = decoder, decoder.unroll_layers()
        self._prompt_length_B, self._prompt_slots = inputs.prompt_length_B, prompt_BP.shape[1]
        self._update, self._num_hypotheses = strategy.update, strategy.num_hypotheses
        room = max(INITIAL_CACHE_LENGTH - self._prompt_slots, INITIAL_CACHE_LENGTH // 2)
        self.sizes = min(max_new_tokens, room), max_new_tokens
        cache = decoder.init_cache(inputs.encoder_out_BSD, self._cache_length(self.sizes[0]))
        hidden_BPD, cache = decoder.decode(self._layers, prompt_BP, cache, jnp.zeros((), jnp.int32))
        picked = jnp.stack([inputs.at_start(special.sot), inputs.prompt_length_B - 1], axis=1)[:, :, None]
        logits_B2V = decoder.logits(jnp.take_along_axis(hidden_BPD, picked, axis=1))
        self.no_speech_prob_B = jax.nn.softmax(logits_B2V[:, 0])[:, special.no_speech]
        self.first_logits_BV = logits_B2V[:, 1]
        self.hypotheses = Hypotheses.empty(
            cache,
            TokenHistory.after_prompts(processors, inputs, max_new_tokens=max_new_tokens),
            count=self._num_hypotheses,
            max_new_tokens=max_new_tokens,
            end=special.eot,
        )

    def step(self, state: SamplingState) -> SamplingState:
        """Run the decoder, and choose the next token of every hypothesis from its logits."""
        hypotheses, hidden_BKD = self._decode(state.hypotheses)
        logits_BKV = self._decoder.logits(hidden_BKD)
        return self._update(dataclasses.replace(state, hypotheses=hypotheses), logits_BKV)

    def goes_on(self, tokens: int, state: SamplingState) -> Bool[Array, ""]:
        """Say whether something has not ended and a cache for this many tokens has room."""
        return ~state.done.all() & (state.hypotheses.history.count <= tokens)

    def is_done(self, state: SamplingState) -> Bool[Array, ""]:
        """Say whether everything has ended."""
        return state.done.all()

    def resize(self, state: SamplingState, tokens: int | None) -> SamplingState:
        """Return a state with a cache for this many tokens; with None, without keys and values."""
        cache = state.hypotheses.cache.resized(None if tokens is None else self._cache_length(tokens))
        return dataclasses.replace(state, hypotheses=dataclasses.replace(state.hypotheses, cache=cache))

    def _cache_length(self, tokens: int) -> int:
        return self._prompt_slots + self._num_hypotheses * tokens

    def _decode(self, hypotheses: Hypotheses) -> tuple[Hypotheses, Float[Array, "B K D"]]:
        """Run the decoder on the last token of each hypothesis; return hidden states of the next tokens."""
        column = hypotheses.history.count - 1
        token_BK = jax.lax.dynamic_index_in_dim(hypotheses.tokens_BTK, column, axis=1, keepdims=False)
        position_B = self._prompt_length_B + column
        hidden_BKD, cache = self._decoder.decode_beams(
            self._layers,
            token_BK,
            hypotheses.cache,
            self._prompt_slots + self._num_hypotheses * column,
            position_B=jnp.minimum(position_B, self._decoder.config.max_target_positions - 1),
            visible_BKC=self._visible(hypotheses),
        )
        return dataclasses.replace(hypotheses, cache=cache), hidden_BKD

    def _visible(self, hypotheses: Hypotheses) -> Bool[Array, "B K C"]:
        """Return True for the slots of the prompt and for those on a hypothesis's path."""
        rows, count, _ = hypotheses.path_BKT.shape
        tokens = (hypotheses.cache.slots - self._prompt_slots) // count
        on_path = hypotheses.path_BKT[:, :, :tokens, None] == jnp.arange(count)
        in_prompt_BP = jnp.arange(self._prompt_slots) < self._prompt_length_B[:, None]
        in_prompt_BKP = jnp.broadcast_to(in_prompt_BP[:, None], (rows, count, self._prompt_slots))
        return jnp.concatenate([in_prompt_BKP, on_path.reshape(rows, count, -1)], axis=2)


@runtime_checkable
class GrowingLoop(Protocol):
    """A loop whose state holds a cache; see the methods of :class:`DecodeLoop`."""

    sizes: tuple[int, int]

    def step(self, state: Any) -> Any: ...  # noqa: D102

    def goes_on(self, size: int, state: Any) -> Bool[Array, ""]: ...  # noqa: D102

    def is_done(self, state: Any) -> Bool[Array, ""]: ...  # noqa: D102

    def resize(self, state: Any, size: int | None) -> Any: ...  # noqa: D102


def grow_cache_and_continue(loop: GrowingLoop, state: Any) -> Any:
    """Run a loop with a small cache, and go on with a large one if something has not ended then.

    Args:
        loop: The loop.
        state: Its state, with the small cache.

    Returns:
        The last state, without keys and values.
    """
    small, large = loop.sizes

    def end(state: Any) -> Any:
        return loop.resize(state, None)

    def grow(state: Any) -> Any:
        state = loop.resize(state, large)
        return end(jax.lax.while_loop(functools.partial(loop.goes_on, large), loop.step, state))

    state = jax.lax.while_loop(functools.partial(loop.goes_on, small), loop.step, state)
    return end(state) if small == large else jax.lax.cond(loop.is_done(state), end, grow, state)
