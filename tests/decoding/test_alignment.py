"""Alignment on the device does what OpenAI's code does on the host, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import whisper.timing

from flax_distil.decoding.alignment import (
    MEDIAN_WIDTH,
    AlignmentInputs,
    align_by_choices,
    align_tokens,
    first_positions,
    median_filter,
)
from flax_distil.model.assembly import bind_decoder
from flax_distil.model.compute_options import ComputeOptions
from tests.model.programs import compiled

HEADS = ((0, 1), (1, 0), (1, 3))
TEXT_START = 4
TEXTS = ([5, 17, 3, 30, 8, 2], [9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
POSITIONS = (6, 5, 4)


def their_first_positions(cost_TS: np.ndarray) -> np.ndarray:
    tokens, positions = whisper.timing.dtw_cpu(cost_TS.astype(np.float64))
    begins = np.pad(np.diff(tokens), (1, 0), constant_values=1).astype(bool)
    return positions[begins]


@pytest.mark.parametrize("kind", ["all different", "many ties", "all equal"])
def test_paths_are_those_of_openai_whatever_the_lengths(kind):
    rng = np.random.default_rng(0)
    rows, length, positions = 40, 13, 29
    cost_BTS = rng.normal(size=(rows, length, positions)).astype(np.float32)
    cost_BTS = {"all different": cost_BTS, "many ties": np.round(cost_BTS), "all equal": 0 * cost_BTS}[kind]
    length_B = rng.integers(1, length + 1, rows, dtype=np.int32)
    positions_B = rng.integers(1, positions + 1, rows, dtype=np.int32)
    found_BT = np.asarray(compiled(first_positions)(cost_BTS, length_B, positions_B))
    for cost_TS, found_T, used, ends in zip(cost_BTS, found_BT, length_B, positions_B, strict=True):
        np.testing.assert_array_equal(found_T[:used], their_first_positions(cost_TS[:used, :ends]))


def test_medians_are_mirrored_at_the_end_of_the_content():
    values = np.random.default_rng(1).normal(size=(2, 3, 20)).astype(np.float32)
    ours = compiled(median_filter)
    for positions in range(1, 21):
        theirs = whisper.timing.median_filter(torch.tensor(values[..., :positions]), MEDIAN_WIDTH)
        np.testing.assert_array_equal(ours(values, positions)[..., :positions], theirs)


@pytest.fixture(scope="module")
def batch(special):
    tokens_BT = np.full((3, 19), special.eot, np.int32)
    for row, text in enumerate(TEXTS):
        prompt = [special.sot, special.languages["en"], special.transcribe, special.no_timestamps]
        tokens_BT[row, : TEXT_START + len(text)] = prompt + text
    return tokens_BT, np.asarray([len(text) for text in TEXTS], np.int32), np.asarray(POSITIONS, np.int32)


@pytest.fixture(scope="module")
def faint(states):
    """Encoder states that no head looks at one position of alone."""
    return 0.1 * states[:3]


@pytest.fixture(scope="module")
def align(config, params, special):
    def run(states, tokens, text_length, positions):
        return align_tokens(
            bind_decoder(config, ComputeOptions(), params["decoder"]),
            AlignmentInputs(states, tokens, text_length, positions),
            text_start=TEXT_START, special=special, heads=HEADS,
        )  # fmt: skip

    return compiled(run)


@pytest.fixture(scope="module")
def aligned(align, faint, batch):
    return align(faint, *batch)


@pytest.fixture(scope="module")
def attention(config, params, faint, batch):
    """Scores [L, B, N, T, S] of all heads, made of every layer's input, and logits [B, T, V]."""

    def run(tokens_BT, encoder_out_BSD):
        decoder = bind_decoder(config, ComputeOptions(), params["decoder"])
        decoded = decoder(tokens_BT, encoder_out_BSD, collect_layers=True)
        causal = jnp.tril(jnp.ones((tokens_BT.shape[1],) * 2, bool))[None, None]
        embedded = params["decoder"]["token_embedding"]["embedding"][tokens_BT]
        inputs = [embedded + params["decoder"]["position_embedding"]["embedding"], *decoded.layers_LBTD[:-1]]
        scores = []
        for layer, x_BTD in zip(decoder.unroll_layers(), inputs, strict=True):
            x_BTD, _ = layer.attend_to_tokens(x_BTD, causal)
            query = layer.cross_attention.query(layer.cross_attention_norm(x_BTD))
            key = layer.cross_attention.key(encoder_out_BSD)
            scores.append(jnp.einsum("bnth,bnsh->bnts", query, key) / key.shape[-1] ** 0.5)
        return jnp.stack(scores), decoder.logits(decoded.hidden_BTD)

    return [np.asarray(part) for part in compiled(run)(batch[0], faint)]


@pytest.mark.parametrize("row", range(3))
def test_a_row_is_aligned_as_by_openai_on_the_attention_of_its_heads(row, special, aligned, attention):
    text, (scores_LBNTS, logits_BTV) = TEXTS[row], attention
    chosen = torch.tensor(np.stack([scores_LBNTS[layer, row, head] for layer, head in HEADS]))
    weights = chosen[:, : TEXT_START + len(text) + 1, : POSITIONS[row]].softmax(dim=-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = whisper.timing.median_filter((weights - mean) / deviation, MEDIAN_WIDTH)
    matrix = weights.mean(axis=0)[TEXT_START - 1 : TEXT_START + len(text)].numpy()
    used = slice(len(text) + 1)
    np.testing.assert_array_equal(aligned.position_BT[row, used], their_first_positions(-matrix))
    assert len(set(aligned.position_BT[row, used].tolist())) > 1
    said = np.asarray(jax.nn.softmax(logits_BTV[row, TEXT_START - 1 :, : special.eot]))
    np.testing.assert_allclose(
        aligned.probability_BT[row, : len(text)], said[np.arange(len(text)), text], rtol=1e-4
    )


def test_tokens_that_look_at_one_position_alone_are_aligned_all_the_same(align, states, batch):
    """Weights too small for float32 are the same for every token, and OpenAI's code divides 0 by 0."""
    found = align(100 * states[:3], *batch)
    for row, text in enumerate(TEXTS):
        position_T = np.asarray(found.position_BT[row, : len(text) + 1])
        assert 0 <= position_T.min() <= position_T.max() < POSITIONS[row]
        assert (np.diff(position_T) >= 0).all()


def test_a_row_does_not_depend_on_its_neighbors(align, aligned, faint, batch):
    order = np.array([2, 0, 1])
    others = align(faint[order], *(part[order] for part in batch))
    for row, before in enumerate(order):
        used = len(TEXTS[before])
        np.testing.assert_array_equal(
            others.position_BT[row, : used + 1], aligned.position_BT[before, : used + 1]
        )


def test_choices_of_heads_are_aligned_as_those_heads_alone(config, params, faint, batch, aligned):
    everything = tuple((layer, head) for layer in range(2) for head in range(4))
    shares_CA = np.zeros((2, 8), np.float32)
    shares_CA[0, [everything.index(pair) for pair in HEADS]] = 1 / 3
    shares_CA[1, 2] = 1

    def run(states, tokens, text_length, positions, shares):
        decoder = bind_decoder(config, ComputeOptions(), params["decoder"])
        return align_by_choices(
            decoder,
            AlignmentInputs(states, tokens, text_length, positions),
            shares,
            text_start=TEXT_START,
            heads=everything,
        )

    found_BCT = compiled(run)(faint, *batch, np.tile(shares_CA, (3, 1, 1)))
    for row, text in enumerate(TEXTS):
        used = slice(len(text) + 1)
        np.testing.assert_array_equal(found_BCT[row, 0, used], aligned.position_BT[row, used])
    assert (found_BCT[:, 0] != found_BCT[:, 1]).any()
