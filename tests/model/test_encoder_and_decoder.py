"""Properties of the modules: causality, padding, scan, remat, dropouts, precision, their limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.assembly import bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.layers import CHECKPOINT_POLICIES
from tests.model.programs import SCAN, compiled, decoding, encoding

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 in another order


def test_no_logit_depends_on_a_later_token(config, params, tokens, states):
    # Only the token at position t reads row t of the position embedding: its slope is the token's reach.
    def logits_at(rows, position):
        decoder = params["decoder"] | {"position_embedding": {"embedding": rows}}
        bound = bind_decoder(config, SCAN, decoder)
        return jnp.sin(bound.logits(bound(tokens, states)[0])[:, position]).sum()

    slope = compiled(jax.grad(logits_at))
    for position in (0, 5, 11):
        reach_T = np.abs(slope(params["decoder"]["position_embedding"]["embedding"], position)).max(axis=1)
        assert (reach_T[: position + 1] > 0).all()
        assert (reach_T[position + 1 :] == 0).all()


def test_padding_tokens_behind_a_text_change_none_of_its_logits(config, params, tokens, states, logits):
    padded = jnp.where(jnp.arange(12) < 7, tokens, 3)
    changed = decoding(config)(params, padded, states)
    np.testing.assert_array_equal(changed[:, :7], logits[:, :7])
    assert np.abs(changed[:, 7:] - logits[:, 7:]).max() > 1e-3


def test_a_row_does_not_depend_on_its_batch(config, params, mel, tokens, states, logits):
    alone = encoding(config)(params, mel[1:2])
    np.testing.assert_allclose(alone, states[1:2], **CLOSE)
    np.testing.assert_allclose(decoding(config)(params, tokens[1:2], alone), logits[1:2], **CLOSE)


def test_layers_one_by_one_equal_one_loop(config, params, mel, tokens, states, logits):
    unrolled = ComputeOptions(use_scan=False)
    np.testing.assert_allclose(encoding(config, unrolled)(params, mel), states, **CLOSE)
    np.testing.assert_allclose(decoding(config, unrolled)(params, tokens, states), logits, **CLOSE)


def test_collected_layers_end_in_the_output(config, params, mel, tokens, states):
    def run(params):
        encoder, decoder = (
            bind_encoder(config, SCAN, params["encoder"]),
            bind_decoder(config, SCAN, params["decoder"]),
        )
        encoded = encoder(mel, collect_layers=True)
        decoded = decoder(tokens, states, collect_layers=True)
        ends = []
        for module, (output, layers) in (
            (encoder, encoded),
            (decoder, (decoded.hidden_BTD, decoded.layers_LBTD)),
        ):
            ends.append((output, module.norm(layers[-1]), layers))
        return ends

    for (output, normed, layers), count in zip(compiled(run)(params), (2, 3), strict=True):
        assert layers.shape == (count, *output.shape)
        np.testing.assert_allclose(output, normed, **CLOSE)


def slopes(config, options, params, mel, tokens):
    def loss(params):
        states, _ = bind_encoder(config, options, params["encoder"])(mel)
        decoder = bind_decoder(config, options, params["decoder"])
        return jnp.square(decoder.logits(decoder(tokens, states)[0])).mean()

    return flatten(compiled(jax.grad(loss))(params))


@pytest.fixture(scope="module")
def plain_slopes(config, params, mel, tokens):
    return slopes(config, SCAN, params, mel, tokens)


@pytest.mark.parametrize(
    "policy", [pytest.param(p, marks=() if p == "full" else pytest.mark.slow) for p in CHECKPOINT_POLICIES]
)
def test_gradient_checkpointing_changes_no_gradient(config, params, mel, tokens, plain_slopes, policy):
    options = dataclasses.replace(SCAN, gradient_checkpointing=policy)
    for path, leaf in slopes(config, options, params, mel, tokens).items():
        np.testing.assert_allclose(leaf, plain_slopes[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "rate",
    ["dropout", *(pytest.param(f"{p}_dropout", marks=pytest.mark.slow) for p in ("attention", "activation"))],
)
def test_every_dropout_draws_from_its_key_and_only_with_one(
    config, params, mel, tokens, states, logits, rate
):
    dropping = dataclasses.replace(config, **{rate: 0.4})
    np.testing.assert_allclose(decoding(dropping)(params, tokens, states), logits, **CLOSE)
    first, again, other = (
        np.asarray(decoding(dropping, key=jax.random.key(seed))(params, tokens, states)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - logits).max() > 1e-3
    dropped = encoding(dropping, key=jax.random.key(1))(params, mel)
    assert np.abs(dropped - states).max() > 1e-3


def test_a_key_without_dropouts_changes_nothing(config, params, tokens, states, logits):
    np.testing.assert_allclose(
        decoding(config, key=jax.random.key(1))(params, tokens, states), logits, **CLOSE
    )


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_computes_in_its_dtype_and_projects_into_float32(
    config, params, mel, tokens, states, logits, dtype, error
):
    options = dataclasses.replace(SCAN, dtype=dtype)
    half = encoding(config, options)(params, mel)
    assert half.dtype == dtype
    np.testing.assert_allclose(half.astype(jnp.float32), states, atol=error * np.abs(states).max())
    said = decoding(config, options)(params, tokens, half)
    assert said.dtype == jnp.float32
    np.testing.assert_allclose(said, logits, atol=error * np.abs(logits).max())


def test_impossible_inputs_are_refused_with_what_was_expected(config, params, mel, states):
    encoder = bind_encoder(config, SCAN, params["encoder"])
    decoder = bind_decoder(config, SCAN, params["decoder"])
    with pytest.raises(ValueError, match="expected 8 mel bins, got 7"):
        encoder(mel[:, :, :7])
    for frames in (39, 42):
        with pytest.raises(ValueError, match=f"at most 40 frames, got {frames}"):
            encoder(jnp.zeros((1, frames, 8)))
    with pytest.raises(ValueError, match="at most 24 tokens, got 25"):
        decoder(jnp.zeros((3, 25), jnp.int32), states)
    with pytest.raises(InputError, match="dtype 'float8' is unknown"):
        ComputeOptions(dtype="float8")
    with pytest.raises(InputError, match="'some' is unknown: expected one of full"):
        ComputeOptions(gradient_checkpointing="some")
