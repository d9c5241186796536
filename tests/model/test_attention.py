"""One function, several implementations: head by head on a CPU, in one product elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.model import attention
from flax_distil.model.attention import dot_product_attention
from tests.model.programs import compiled


@pytest.fixture(scope="module", params=[(64, 64), (48, 100), (5, 100)], ids=["self", "cross", "few"])
def inputs(request):
    queries, sources = request.param
    keys = jax.random.split(jax.random.key(0), 3)
    lengths = (queries, sources, sources)
    return tuple(jax.random.normal(key, (2, 3, length, 8)) for key, length in zip(keys, lengths, strict=True))


def plain(query, key, value):
    """Return softmax(q kᵀ / sqrt(H)) v, written out."""
    scores = jnp.einsum("bnth,bnsh->bnts", query, key) / jnp.sqrt(8.0)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores, axis=-1), value)


@pytest.fixture
def several_blocks(monkeypatch):
    """Let a block hold a quarter of the scores of 64 × 64."""
    monkeypatch.setattr(attention, "_BLOCK_BYTES", 64 * 64)


def test_the_values_are_those_of_the_formula(inputs, several_blocks):
    assert attention._block_count(64, 64) == 4
    np.testing.assert_allclose(compiled(dot_product_attention)(*inputs), plain(*inputs), rtol=1e-5, atol=1e-6)


def test_the_gradients_are_those_of_the_formula(inputs, several_blocks):
    def slopes(attend):
        return compiled(jax.grad(lambda *x: jnp.sin(attend(*x)).sum(), argnums=(0, 1, 2)))(*inputs)

    for ours, wanted in zip(slopes(dot_product_attention), slopes(plain), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


def test_blocks_hold_no_more_than_their_bytes_and_divide_the_queries():
    for length, sources in ((1500, 1500), (448, 1500), (32, 7)):
        blocks = attention._block_count(length, sources)
        assert length % blocks == 0
        assert 4 * length // blocks * sources <= attention._BLOCK_BYTES


@pytest.mark.parametrize("implementation", ["_whole", "_by_blocks", "_by_keys"])
def test_every_implementation_gives_the_same(inputs, several_blocks, implementation):
    attend = compiled(getattr(attention, implementation))
    query, key, value = inputs
    np.testing.assert_allclose(
        attend(query / jnp.sqrt(8.0), key, value), plain(*inputs), rtol=1e-5, atol=1e-6
    )


def test_masked_keys_are_never_read(inputs):
    query, key, value = inputs
    mask = (jnp.arange(key.shape[2]) < 10)[None, None, None, :].repeat(query.shape[2], axis=2)
    wanted = plain(query, key[:, :, :10], value[:, :, :10])
    np.testing.assert_allclose(dot_product_attention(query, key, value, mask), wanted, rtol=1e-5, atol=1e-6)


def test_the_softmax_of_half_precision_is_in_float32():
    # 300 equal weights of 1/300: summed in bfloat16 they would not make 1.
    ones = jnp.ones((1, 1, 1, 4), jnp.bfloat16)
    value = jnp.ones((1, 1, 300, 4), jnp.bfloat16)
    np.testing.assert_allclose(dot_product_attention(ones, value, value).astype(jnp.float32), 1.0, atol=0.004)


def test_dropout_keeps_the_mean_of_the_attention(inputs):
    query, key, value = inputs
    drawn = [
        dot_product_attention(query, key, value, dropout_rate=0.5, dropout_key=jax.random.key(seed))
        for seed in range(40)
    ]
    wanted = plain(query, key, value)
    assert np.abs(drawn[0] - wanted).max() > 0.1
    assert np.abs(np.mean(drawn, axis=0) - wanted).mean() < 0.06
