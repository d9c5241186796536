"""Projections with int8 weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.tree import flatten
from flax_distil.model.assembly import (
    bind_decoder,
    bind_encoder,
    to_decode_params,
    to_int8_params,
    whisper_shapes,
)
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.int8.products import int8_product, quantize, quantize_twice_gelu
from flax_distil.model.layers import unstack
from tests.model.programs import SCAN, compiled, decoding, encoding

INT8 = dataclasses.replace(SCAN, int8=True)


@pytest.fixture(scope="module")
def int8_params(params):
    return to_int8_params(params)


def test_a_value_is_half_a_scale_from_its_integer_at_most():
    x = jax.random.normal(jax.random.key(0), (5, 64)).at[2].set(0.0)
    integers, scale = quantize(x, (1,))
    assert integers.dtype == jnp.int8
    assert scale.shape == (5, 1)
    assert (np.abs(integers).max(axis=1) == [127, 127, 0, 127, 127]).all()
    assert (np.abs(integers * scale - x) <= 0.5001 * scale).all()


def test_outputs_of_the_gelu_are_rounded_by_half_as_much():
    """Their range is from -0.17 upwards, so integers about its middle are nearer to each other."""
    x = 2 * jax.nn.gelu(jax.random.normal(jax.random.key(0), (5, 64)), approximate=False).at[2].set(0.0)
    integers, scale, middle = quantize_twice_gelu(x, x.max(axis=1, keepdims=True))
    assert integers.dtype == jnp.int8
    assert (np.abs(integers * scale + middle - x) <= 0.5001 * scale).all()
    assert (scale < 0.56 * quantize(x, (1,))[1]).sum() == 4  # but for the zeros
    assert (integers[2] * scale[2] + middle[2] == 0).all()
    assert np.abs(np.asarray(jnp.round(x / scale) - jnp.round(middle / scale))).max() <= 127


def test_a_product_with_outputs_of_the_gelu_is_that_of_the_integers():
    random = np.random.default_rng(0)
    x = 2 * jax.nn.gelu(jnp.asarray(random.normal(size=(2, 3, 64)), jnp.float32), approximate=False)
    kernel = jnp.asarray(random.integers(-127, 128, (64, 8)), jnp.int8)
    scale = jnp.asarray(random.uniform(size=8), jnp.float32)
    wanted = np.einsum("btf,fd,d->btd", x, kernel, scale)

    def error(**options):
        found = int8_product(x, kernel, scale, axes=("btf", "fd", "d"), out="btd", dtype="float32", **options)
        return np.sqrt(np.mean((found - wanted) ** 2)) / np.std(wanted)

    assert 0 < error(of_gelu=True) < 0.7 * error() < 0.01


@pytest.mark.parametrize(("axes", "out"), [(("btd", "dnh", "nh"), "bnth"), (("bnth", "ndh", "nh"), "bntd")])
def test_a_product_is_that_of_the_integers(axes, out):
    """In both directions: with its scales on what it gives, or on what it sums over."""
    sizes = {"b": 2, "t": 3, "d": 8, "n": 2, "h": 4}
    random = np.random.default_rng(0)
    shapes = [[sizes[axis] for axis in part] for part in axes]
    x, scale = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes[::2])
    kernel = jnp.asarray(random.integers(-127, 128, shapes[1]), jnp.int8)
    found = int8_product(x, kernel, scale, axes=axes, out=out, dtype="float32")
    wanted = np.einsum(f"{','.join(axes)}->{out}", x, kernel, scale)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    assert np.abs(found - wanted).max() > 0  # activations were rounded


@pytest.mark.parametrize(("platform", "rest"), [("cpu", "float32"), ("tpu", "bfloat16")])
def test_what_is_not_a_product_is_computed_in_the_best_type_of_the_platform(platform, rest):
    decided = ComputeOptions(dtype="int8").on(platform)
    assert (decided.dtype, decided.int8) == (rest, True)
    assert decided.on(platform) == decided


def test_only_kernels_of_layers_are_converted(params, int8_params):
    kept, given = flatten(int8_params), flatten(params)
    converted = {path for path, leaf in kept.items() if leaf.dtype == jnp.int8}
    assert converted == {path for path in given if "/layers/" in path and path.endswith("/kernel")}
    for path in converted:
        scale = kept[path.replace("kernel", "kernel_scale")]
        if (bias := given.get(path.replace("kernel", "bias"))) is not None:
            assert scale.shape == bias.shape
    assert all(kept[path] is given[path] for path in given.keys() - converted)


def test_a_model_computes_nearly_the_same_in_int8(config, params, int8_params, mel, tokens, states, logits):
    heard = encoding(config, INT8)(int8_params, mel)
    said = decoding(config, INT8)(int8_params, tokens, states)
    for found, wanted in ((heard, states), (said, logits)):
        error = np.sqrt(np.mean((found - wanted) ** 2)) / np.std(wanted)
        assert 1e-4 < error < 0.05


def test_the_kernels_of_a_layer_compute_as_its_operations_do():
    """In Pallas' interpret mode, with a block that reaches beyond the last token."""
    config = WhisperConfig(
        vocab_size=8, d_model=128, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=256, decoder_ffn_dim=256,
    )  # fmt: skip
    random = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(scale=0.1, size=leaf.shape), jnp.float32),
        whisper_shapes(config)["encoder"],
    )
    layer = unstack(bind_encoder(config, INT8, to_int8_params(drawn)).layers, INT8.sharding)[0]
    x_BSD = jnp.asarray(random.normal(size=(1, 200, 128)), jnp.float32)
    found = layer._run_int8_kernels(x_BSD, interpret=True)
    np.testing.assert_allclose(found, layer._run(x_BSD), atol=0.02)


def test_decoding_with_a_cache_computes_as_teacher_forcing_does(config, params, int8_params, tokens, states):
    """Its cross-attention multiplies with transposed weights, whose rounding differs."""
    wanted = decoding(config, INT8)(int8_params, tokens[:, :2], states)
    params = to_int8_params({"decoder": to_decode_params(params["decoder"])})

    def run(params, tokens, states):
        decoder = bind_decoder(config, INT8, params["decoder"])
        layers = decoder.unroll_layers()
        hidden, _ = decoder.decode(layers, tokens, decoder.init_cache(states, 4), jnp.int32(0))
        return decoder.logits(hidden)

    found = compiled(run)(params, tokens[:, :2], states)
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.05 * np.std(wanted)
