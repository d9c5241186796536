"""When each token of a known text is spoken: dynamic time warping on the attention of the alignment heads.

::

    queries and keys of some heads -> weights over the content of each window -> standardized over tokens
      -> median over 7 positions -> mean of the heads -> cheapest monotonic path -> first position per token

All of this is computed on the device, which returns two numbers per token.

Source: ``timing.find_alignment`` and ``timing.dtw`` of openai/whisper; dynamic time warping, Sakoe and Chiba
1978.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.model.decoder import Decoder
from flax_distil.text.special_tokens import SpecialTokens

MEDIAN_WIDTH = 7
"""Number of source positions whose median is taken: 0.14 s."""

_HALF = MEDIAN_WIDTH // 2

_BOTH, _TOKEN, _POSITION = np.int8(0), np.int8(1), np.int8(2)
"""Which way a step of a path goes."""

# Exchanges that sort seven numbers far enough for the fourth to be their median (Devillard 1998).
_EXCHANGES = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AlignmentInputs:
    """A batch of windows whose text is known.

    Attributes:
        encoder_out_BSD: Output of the encoder.
        tokens_BT: Prompt ending in ``<|notimestamps|>``, text, end-of-text if there is room, padding.
        text_length_B: Number of tokens of text.
        positions_B: Number of source positions with content, at least 1.
    """

    encoder_out_BSD: Float[Array, "B S D"]
    tokens_BT: Int[Array, "B T"]
    text_length_B: Int[Array, " B"]
    positions_B: Int[Array, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenAlignment:
    """Where the tokens of texts are, on the device.

    Attributes:
        position_BT: Source position (0.02 s) where each token of text begins. There is one entry more than
            there are tokens, where the last one ends. What follows has no meaning.
        probability_BT: Probability of each token of text among all text, from 0 to 1.
    """

    position_BT: Int[Array, "B T"]
    probability_BT: Float[Array, "B T"]


def align_tokens(
    decoder: Decoder,
    inputs: AlignmentInputs,
    *,
    text_start: int,
    special: SpecialTokens,
    heads: Sequence[tuple[int, int]],
) -> TokenAlignment:
    """Find the tokens of texts in the speech.

    Args:
        decoder: Bound to its parameters.
        inputs: The batch.
        text_start: Length of the prompt.
        special: Tells which ids are text.
        heads: Pairs of decoder layer and head, ordered by layer.

    Returns:
        Positions and probabilities, ``T - text_start + 1`` entries per row.
    """
    is_text_V = np.array([special.is_text(token) for token in range(decoder.config.vocab_size)])
    before = text_start - 1  # a token is predicted, and looked for, by the one before it
    hidden_BTD, weights_of_row, rows = _attention(decoder, inputs, text_start=text_start, heads=heads)

    def probabilities_of_row(row: tuple[Array, Array]) -> Array:
        hidden_TD, next_T = row
        logits_TV = jnp.where(is_text_V, decoder.logits(hidden_TD[None])[0], -jnp.inf)
        picked_T = jnp.take_along_axis(logits_TV, next_T[:, None], axis=1)[:, 0]
        return jnp.exp(picked_T - jax.nn.logsumexp(logits_TV, axis=1))

    # Row by row, since the weights and the logits over the vocabulary of all rows would not fit.
    matrix_BTS = jax.lax.map(lambda row: weights_of_row(row).mean(axis=0)[before:], rows)
    next_BT = jnp.roll(inputs.tokens_BT, -1, axis=1)
    return TokenAlignment(
        first_positions(-matrix_BTS, inputs.text_length_B + 1, inputs.positions_B),
        jax.lax.map(probabilities_of_row, (hidden_BTD[:, before:], next_BT[:, before:])),
    )


def align_by_choices(
    decoder: Decoder,
    inputs: AlignmentInputs,
    share_BCA: Float[Array, "B C A"],
    *,
    text_start: int,
    heads: Sequence[tuple[int, int]],
) -> Int[Array, "B C _"]:
    """Find the tokens of texts in the speech as each of several choices of heads would.

    Args:
        decoder: Bound to its parameters.
        inputs: The batch.
        share_BCA: Share of each head in the mean of choice c.
        text_start: Length of the prompt.
        heads: Pairs of decoder layer and head, ordered by layer.

    Returns:
        Positions, as in :class:`TokenAlignment`.
    """
    _, weights_of_row, rows = _attention(decoder, inputs, text_start=text_start, heads=heads)

    def positions_of_row(row: tuple[Any, Array, Array, Array]) -> Array:
        given, share_CA, text_length, positions = row
        weights_ATS = weights_of_row(given)[:, text_start - 1 :]
        matrix_CTS = jnp.einsum("ca,ats->cts", share_CA, weights_ATS, precision="highest")
        choices = len(share_CA)
        lengths, ends = jnp.full(choices, text_length + 1), jnp.full(choices, positions)
        return first_positions(-matrix_CTS, lengths, ends)

    return jax.lax.map(positions_of_row, (rows, share_BCA, inputs.text_length_B, inputs.positions_B))


def _attention(
    decoder: Decoder, inputs: AlignmentInputs, *, text_start: int, heads: Sequence[tuple[int, int]]
) -> tuple[Array, Callable[[Any], Array], Any]:
    """Return hidden states, a function that gives the weights [A, T, S] of a row, and the rows."""
    hidden_BTD, query_BATH, key_ADH = decoder.forward_with_alignment_heads(
        inputs.tokens_BT, inputs.encoder_out_BSD, heads
    )

    def weights_of_row(row: Any) -> Array:
        query_ATH, states_SD, length, positions = row
        key_ASH = jnp.einsum("sd,adh->ash", states_SD, key_ADH)
        scores_ATS = jnp.einsum("ath,ash->ats", query_ATH, key_ASH, preferred_element_type=jnp.float32)
        return _follow_speech(scores_ATS, length, positions)

    length_B = jnp.minimum(text_start + inputs.text_length_B + 1, inputs.tokens_BT.shape[1])
    states_BSD = inputs.encoder_out_BSD.astype(decoder.options.dtype)
    return hidden_BTD, weights_of_row, (query_BATH, states_BSD, length_B, inputs.positions_B)


def _follow_speech(
    scores_ATS: Float[Array, "A T S"], length: Int[Array, ""], positions: Int[Array, ""]
) -> Float[Array, "A T S"]:
    """Return how much the weights of a token stand out against those of other tokens, smoothed; float32.

    Where every token has the same weight, for instance where all are too small for float32, the result is 0.
    """
    is_content_S = jnp.arange(scores_ATS.shape[2]) < positions
    is_token_T1 = (jnp.arange(scores_ATS.shape[1]) < length)[:, None]
    weights_ATS = jax.nn.softmax(scores_ATS, where=is_content_S, axis=-1)

    def mean(values_ATS: Array) -> Array:
        return values_ATS.sum(axis=1, where=is_token_T1, keepdims=True) / length

    centered_ATS = weights_ATS - mean(weights_ATS)
    deviation_A1S = jnp.sqrt(mean(jnp.square(centered_ATS)))
    standard_ATS = jnp.where(
        deviation_A1S > 0, centered_ATS / jnp.where(deviation_A1S > 0, deviation_A1S, 1), 0
    )
    return median_filter(standard_ATS, positions)


def median_filter(values: Float[Array, "... S"], positions: Int[Array, ""]) -> Float[Array, "... S"]:
    """Take medians of seven neighbors, mirrored at the first and at the last of the positions.

    Rows of three positions or fewer stay as they are. Results behind the positions have no meaning.
    """
    size = values.shape[-1]
    if size <= _HALF:
        return values
    wide = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(_HALF, _HALF)], mode="reflect")
    mirrored = jax.lax.dynamic_slice_in_dim(values, positions - 1 - _HALF, _HALF, axis=-1)[..., ::-1]
    wide = jax.lax.dynamic_update_slice_in_dim(wide, mirrored, positions + _HALF, axis=-1)
    seven = [wide[..., shift : shift + size] for shift in range(MEDIAN_WIDTH)]
    for low, high in _EXCHANGES:
        seven[low], seven[high] = jnp.minimum(seven[low], seven[high]), jnp.maximum(seven[low], seven[high])
    return jnp.where(positions > _HALF, seven[_HALF], values)


def first_positions(
    cost_BTS: Float[Array, "B T S"], length_B: Int[Array, " B"], positions_B: Int[Array, " B"]
) -> Int[Array, "B T"]:
    """Return where each token begins on the cheapest path from the first corner to the last.

    A path goes on by a token, by a position, or by both. It goes on by a position unless another way is
    cheaper than each of the two others, as in openai/whisper. Whole anti-diagonals are computed at once::

              s=0  1  2  3
        t=0     0  1  2  3
        t=1     1  2  3  4      step of the loop that computes a cell
        t=2     2  3  4  5

    Args:
        cost_BTS: Cost of token t being spoken at position s; finite.
        length_B: Number of tokens of each row, at least 1.
        positions_B: Number of source positions of each row, at least 1.
    """
    rows, length, _ = cost_BTS.shape
    diagonals_KBT = _diagonals(cost_BTS)
    outside = jnp.full((rows, length + 1), jnp.inf)  # a border before the first token
    origin = outside.at[:, 0].set(0.0)

    def forward(last: tuple[Array, Array], cost_BT: Array) -> tuple[tuple[Array, Array], Array]:
        one_ago, two_ago = last
        both, token, position = two_ago[:, :-1], one_ago[:, :-1], one_ago[:, 1:]
        by_both = (both < token) & (both < position)
        by_token = (token < both) & (token < position)
        before = jnp.where(by_both, both, jnp.where(by_token, token, position))
        here = jnp.concatenate([outside[:, :1], cost_BT + before], axis=1)
        return (here, one_ago), jnp.where(by_both, _BOTH, jnp.where(by_token, _TOKEN, _POSITION))

    _, steps_KBT = jax.lax.scan(forward, (outside, origin), diagonals_KBT)

    def backward(
        place: tuple[Array, Array, Array], step: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        token_B, position_B, found_BT = place
        number, steps_BT = step
        is_here_B = token_B + position_B == number
        at_token_BT = (jnp.arange(length) == token_B[:, None]) & is_here_B[:, None]
        found_BT = jnp.where(at_token_BT, position_B[:, None], found_BT)
        step_B = jnp.sum(steps_BT, axis=1, where=at_token_BT)
        token_B -= is_here_B & (step_B != _POSITION)
        position_B -= is_here_B & (step_B != _TOKEN)
        return (token_B, position_B, found_BT), None

    start = (length_B - 1, positions_B - 1, jnp.zeros((rows, length), jnp.int32))
    numbers_K = jnp.arange(len(steps_KBT))
    (_, _, found_BT), _ = jax.lax.scan(backward, start, (numbers_K, steps_KBT), reverse=True)
    return found_BT


def _diagonals(cost_BTS: Float[Array, "B T S"]) -> Float[Array, "K B T"]:
    """Return, for step k of the loop, the cost of token t at position k - t; infinite outside.

    The rows are padded by T and read again as rows that are shorter by one, which shifts each by one more.
    """
    rows, length, positions = cost_BTS.shape
    wide = jnp.pad(cost_BTS, [(0, 0), (0, 0), (0, length)], constant_values=jnp.inf)
    width = positions + length - 1
    skewed_BTK = wide.reshape(rows, -1)[:, : length * width].reshape(rows, length, width)
    return skewed_BTK.transpose(2, 0, 1)
