"""Layer normalisation, and its statistics in one pass and in two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from flax_distil.model.layers import (
    _variance_in_one_pass,
    _variance_in_two_passes,
    gelu,
    layer_norm,
    twice_gelu_by_erf,
    twice_gelu_by_tanh,
)


def test_layer_norm_is_that_of_flax_in_every_bit():
    theirs = nnx.LayerNorm(24, epsilon=1e-5, use_fast_variance=False, dtype="bfloat16", rngs=nnx.Rngs(0))
    ours = layer_norm(24, dtype="bfloat16", rngs=nnx.Rngs(0))
    for leaf, seed in ((theirs.scale, 1), (theirs.bias, 2)):
        leaf[...] = jax.random.normal(jax.random.key(seed), (24,))
    ours.scale[...], ours.bias[...] = theirs.scale[...], theirs.bias[...]
    x = 3.0 + jax.random.normal(jax.random.key(0), (2, 5, 24))
    np.testing.assert_array_equal(ours(x), theirs(x))


def test_the_variance_in_one_pass_is_that_in_two_within_float32():
    # The squared mean is four variances: more than anywhere in the encoders of tiny.en and base.
    x = 2.0 + jax.random.normal(jax.random.key(0), (1000, 1280))
    mean = x.mean(axis=-1, keepdims=True)
    exact = np.asarray(x, np.float64).var(axis=-1, keepdims=True)
    np.testing.assert_allclose(_variance_in_two_passes(x, mean), exact, rtol=1e-6)
    np.testing.assert_allclose(_variance_in_one_pass(x, mean), exact, rtol=3e-6)  # seen 1e-6
    assert (_variance_in_one_pass(jnp.full((1, 8), 0.1), jnp.full((1, 1), 0.1)) >= 0.0).all()


def test_the_gelu_of_a_tpu_is_exact_to_two_bytes():
    x = jnp.linspace(-12, 12, 100_001)
    assert np.abs(twice_gelu_by_tanh(x) - exact_twice_gelu(x)).max() < 2 * 2.6e-5
    gradients = [jax.vmap(jax.grad(function))(x) for function in (twice_gelu_by_tanh, twice_gelu_by_erf)]
    np.testing.assert_allclose(*gradients, atol=4e-4)
    in_two_bytes = x.astype(jnp.bfloat16)
    errors = [
        np.abs(np.asarray(function(in_two_bytes), np.float64) - exact_twice_gelu(in_two_bytes)).mean()
        for function in (twice_gelu_by_tanh, twice_gelu_by_erf)
    ]
    assert errors[0] <= errors[1]
    assert (np.asarray(twice_gelu_by_tanh(jnp.asarray([-1e4, 1e4]))) == [0, 2e4]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gelu", "layer norm"])
def test_a_backward_pass_in_two_bytes_keeps_the_input_alone(name, dtype):
    norm = layer_norm(8, dtype=dtype, rngs=nnx.Rngs(0))
    x = jnp.ones((4, 6, 8), dtype)
    _, backward = jax.vjp(gelu if name == "gelu" else norm, x)
    assert [leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.size >= x.size] == [dtype]


def exact_twice_gelu(x):
    x = np.asarray(x, np.float64)
    return x * (1 + scipy.special.erf(x / np.sqrt(2)))
