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

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.beam import BeamSearch
from flax_distil.decoding.greedy import GreedyOrSample
from flax_distil.decoding.hypotheses import Hypotheses, SamplingState
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs, GenerateOutput, RowSettings
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

    def start(self, hypotheses: Hypotheses, rows: RowSettings, no_speech_prob_B: Float[Array, " B"]) -> Any:
        """Return the state before the first token."""

    def update(self, state: Any, logits: Array) -> Any:
        """Choose the next tokens, from logits [B, K, V]; the first ones from logits [B, V]."""

    def finalize(self, state: Any, max_new_tokens: int) -> GenerateOutput:
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
    loop = DecodeLoop.of_inputs(decoder, inputs, processors, options, max_new_tokens=max_new_tokens)
    output: GenerateOutput = decode_to_the_end(loop, inputs)
    return output


class DecodeLoop:
    """Runs the decoder on the hypotheses of a batch, within one trace.

    Attributes:
        sizes: Number of tokens that the small cache and the large one have room for.
    """

    def __init__(
        self,
        decoder: Decoder,
        processors: LogitsProcessors,
        strategy: Strategy,
        *,
        prompt_slots: int,
        max_new_tokens: int,
    ):
        """Take what the loop reads.

        Args:
            decoder: Bound to its parameters.
            processors: Which tokens may be emitted.
            strategy: Turns logits into tokens.
            prompt_slots: Length that prompts are padded to.
            max_new_tokens: Maximum number of tokens per row.
        """
        self._decoder, self._layers = decoder, decoder.unroll_layers()
        self._processors, self._strategy = processors, strategy
        self._prompt_slots, self._max_new_tokens = prompt_slots, max_new_tokens
        room = max(INITIAL_CACHE_LENGTH - prompt_slots, INITIAL_CACHE_LENGTH // 2)
        self.sizes = min(max_new_tokens, room), max_new_tokens

    @classmethod
    def of_inputs(
        cls,
        decoder: Decoder,
        inputs: GenerateInputs,
        processors: LogitsProcessors,
        options: SearchOptions,
        *,
        max_new_tokens: int,
    ) -> "DecodeLoop":
        """Return the loop for a batch: beam search if rows have no temperatures and beams are asked for."""
        samples = inputs.temperature_B is not None
        strategy: Strategy = (
            BeamSearch(processors, options)
            if options.num_beams > 1 and not samples
            else GreedyOrSample(processors, options, samples=samples)
        )
        slots = inputs.prompt_BP.shape[1]
        return cls(decoder, processors, strategy, prompt_slots=slots, max_new_tokens=max_new_tokens)

    def begin(self, inputs: GenerateInputs, tokens: int) -> SamplingState:
        """Read the prompts ("prefill"), and choose the first token of every hypothesis.

        Args:
            inputs: The batch.
            tokens: Number of tokens that the cache has room for beside the prompts; 0 keeps the prompts only.
        """
        special, count = self._processors.special, self._strategy.num_hypotheses
        rows = inputs.rows(self._decoder.config.max_target_positions, self._max_new_tokens)
        cache = self._decoder.init_cache(inputs.encoder_out_BSD, self._prompt_slots + count * tokens)
        hidden_BPD, cache = self._decoder.decode(
            self._layers, inputs.prompt_BP, cache, jnp.zeros((), jnp.int32)
        )
        picked = jnp.stack([inputs.at_start(special.sot), inputs.prompt_length_B - 1], axis=1)[:, :, None]
        logits_B2V = self._decoder.logits(jnp.take_along_axis(hidden_BPD, picked, axis=1))
        hypotheses = Hypotheses.empty(
            cache,
            TokenHistory.after_prompts(self._processors, inputs, max_new_tokens=self._max_new_tokens),
            count=count,
            columns=self.sizes[0],
            end=special.eot,
        )
        no_speech_prob_B = jax.nn.softmax(logits_B2V[:, 0])[:, special.no_speech]
        state = self._strategy.start(hypotheses, rows, no_speech_prob_B)
        begun: SamplingState = self._strategy.update(state, logits_B2V[:, 1])
        return begun

    def step(self, state: SamplingState) -> SamplingState:
        """Run the decoder, and choose the next token of every hypothesis from its logits."""
        hypotheses, hidden_BKD = self._decode(state.hypotheses, state.rows.prompt_length_B)
        logits_BKV = self._decoder.logits(hidden_BKD)
        stepped: SamplingState = self._strategy.update(
            dataclasses.replace(state, hypotheses=hypotheses), logits_BKV
        )
        return stepped

    def goes_on(self, tokens: int, state: SamplingState) -> Bool[Array, ""]:
        """Say whether something has not ended and a cache for this many tokens has room."""
        return ~self.is_done(state) & self.has_room(tokens, state)

    def has_room(self, tokens: int, state: SamplingState) -> Bool[Array, ""]:
        """Say whether a cache for this many tokens has room for another one of every row that goes on."""
        return (jnp.where(self.ended(state), 0, state.hypotheses.steps_B) < tokens).all()

    def is_done(self, state: SamplingState) -> Bool[Array, ""]:
        """Say whether everything has ended."""
        return state.done.all()

    def ended(self, state: SamplingState) -> Bool[Array, " B"]:
        """Say which rows have ended."""
        return state.done.reshape(len(state.no_speech_prob_B), -1).all(axis=1)

    def resize(self, state: SamplingState, tokens: int) -> SamplingState:
        """Return a state with a cache for this many tokens."""
        resized: SamplingState = state.resized(tokens)
        return resized

    def place(
        self, state: SamplingState, begun: SamplingState, source: Array, row: Array, is_wanted: Array
    ) -> SamplingState:
        """Return a state in whose row another window begins; see ``place_rows``."""
        hypotheses = begun.hypotheses.beginning_at(state.hypotheses.column, state.hypotheses.columns)
        begun = dataclasses.replace(begun, hypotheses=hypotheses)
        placed: SamplingState = place_rows(state, begun, source, row, is_wanted)
        return placed

    def output(self, state: SamplingState) -> GenerateOutput:
        """Return the tokens of every row."""
        return self._strategy.finalize(state, self._max_new_tokens)

    def _decode(
        self, hypotheses: Hypotheses, prompt_length_B: Int[Array, " B"]
    ) -> tuple[Hypotheses, Float[Array, "B K D"]]:
        """Run the decoder on the last token of each hypothesis; return hidden states of the next tokens."""
        column = hypotheses.column
        token_BK = jax.lax.dynamic_index_in_dim(hypotheses.tokens_BTK, column, axis=1, keepdims=False)
        position_B = prompt_length_B + hypotheses.steps_B - 1
        hidden_BKD, cache = self._decoder.decode_beams(
            self._layers,
            token_BK,
            hypotheses.cache,
            self._prompt_slots + self._strategy.num_hypotheses * column,
            position_B=jnp.clip(position_B, 0, self._decoder.config.max_target_positions - 1),
            visible_BKC=self._visible(hypotheses, prompt_length_B),
        )
        return dataclasses.replace(hypotheses, cache=cache), hidden_BKD

    def _visible(self, hypotheses: Hypotheses, prompt_length_B: Int[Array, " B"]) -> Bool[Array, "B K C"]:
        """Return True for the slots of the prompt and for those on a hypothesis's path."""
        rows, count, _ = hypotheses.path_BKT.shape
        on_path = hypotheses.path_BKT[:, :, :, None] == jnp.arange(count)
        on_path &= hypotheses.own_BT[:, None, :, None]
        in_prompt_BP = jnp.arange(self._prompt_slots) < prompt_length_B[:, None]
        in_prompt_BKP = jnp.broadcast_to(in_prompt_BP[:, None], (rows, count, self._prompt_slots))
        return jnp.concatenate([in_prompt_BKP, on_path.reshape(rows, count, -1)], axis=2)


@runtime_checkable
class GrowingLoop(Protocol):
    """A loop whose state holds a cache; see the methods of :class:`DecodeLoop`."""

    sizes: tuple[int, int]

    def begin(self, inputs: GenerateInputs, size: int) -> Any: ...  # noqa: D102

    def step(self, state: Any) -> Any: ...  # noqa: D102

    def goes_on(self, size: int, state: Any) -> Bool[Array, ""]: ...  # noqa: D102

    def is_done(self, state: Any) -> Bool[Array, ""]: ...  # noqa: D102

    def resize(self, state: Any, size: int) -> Any: ...  # noqa: D102

    def output(self, state: Any) -> GenerateOutput: ...  # noqa: D102


def decode_to_the_end(loop: GrowingLoop, inputs: GenerateInputs) -> Any:
    """Run a loop with a small cache, and go on with a large one if something has not ended then.

    Args:
        loop: The loop.
        inputs: The batch.

    Returns:
        The tokens of every row.
    """
    small, large = loop.sizes

    def grow(state: Any) -> Any:
        state = loop.resize(state, large)
        return loop.output(jax.lax.while_loop(functools.partial(loop.goes_on, large), loop.step, state))

    state = loop.begin(inputs, small)
    state = jax.lax.while_loop(functools.partial(loop.goes_on, small), loop.step, state)
    if small == large:
        return loop.output(state)
    return jax.lax.cond(loop.is_done(state), loop.output, grow, state)


def place_rows(state: Any, begun: Any, source: Array, row: Array, is_wanted: Array) -> Any:
    """Return a state in whose row another window begins.

    Args:
        state: A tree of arrays with B rows; their first axis may hold several entries of each row. An array
            with fewer entries belongs to all rows, and stays.
        begun: The same for M windows. Axes behind the first may be shorter: what lies behind is kept.
        source: Which of the M windows begins.
        row: The row.
        is_wanted: Otherwise nothing changes.
    """

    def place(leaf: Array, given: Array, entries: int) -> Array:
        if not entries:
            return leaf
        new = jax.lax.dynamic_slice_in_dim(given, source * entries, entries)
        start = (row * entries, *[jnp.zeros((), row.dtype)] * (leaf.ndim - 1))
        old = jax.lax.dynamic_slice(leaf, start, new.shape)
        return jax.lax.dynamic_update_slice(leaf, jnp.where(is_wanted, new, old), start)

    rows = len(state.no_speech_prob_B)
    return jax.tree.map(lambda leaf, given: place(leaf, given, len(leaf) // rows), state, begun)
