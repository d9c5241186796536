"""Scaled dot-product attention: one function that uses the best implementation of each platform."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float
from flax_distil.model.attention_kernels import attend_on_tpu, attend_with_cudnn, fits_cudnn, fits_tpu_kernel

_BLOCK_BYTES = 4 << 20
"""Size of the scores of one block on a CPU, which about fits the cache of a core."""

_FEW_QUERIES = 64
"""With fewer queries than this, as in decoding, most of the time is spent reading the keys."""


def dot_product_attention(
    query_BNTH: Float[Array, "B N T H"],
    key_BNSH: Float[Array, "B N S H"],
    value_BNSH: Float[Array, "B N S H"],
    mask_B1TS: Bool[Array, "#B 1 T S"] | None = None,
    *,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "B N T H"]:
    """Attend with every query to the keys that its mask allows.

    The result is ``softmax(scale · q kᵀ) v``; the softmax is always computed in float32.
    The implementation is chosen by platform when the program is lowered. With a mask or dropout, and on
    platforms that are not listed, it is one batched product. Otherwise:

    - on a CPU, one head at a time: many queries in blocks, so that scores stay in the cache, and few queries
    so that the keys are read in their order in memory (several times faster with 1500 positions, equal up to
    float32 rounding);
    - on a TPU, for many queries, a Pallas kernel;
    - on an NVIDIA GPU, in half precision, the flash attention of cuDNN.

    Args:
        query_BNTH: Queries.
        key_BNSH: Keys.
        value_BNSH: Values; if they are the same array as the keys, it is read only once.
        mask_B1TS: True where a query may attend to a key; None allows all.
        scale: Factor of the scores; by default ``1 / sqrt(H)``.
        dropout_rate: Dropout rate of the attention probabilities; it needs ``dropout_key``.
        dropout_key: Random key for dropout while training; None otherwise.

    Returns:
        Weighted means of the values [B, N, T, H] in the dtype of the queries.
    """
    scale = query_BNTH.shape[3] ** -0.5 if scale is None else scale
    query_BNTH = query_BNTH * scale
    if dropout_key is not None and dropout_rate > 0:
        return _whole(query_BNTH, key_BNSH, value_BNSH, mask_B1TS, dropout_rate, dropout_key)
    if mask_B1TS is not None:
        return _whole(query_BNTH, key_BNSH, value_BNSH, mask_B1TS)
    kernels = _fast_kernels(query_BNTH, key_BNSH) | {"default": _whole}
    if value_BNSH is not key_BNSH:
        return jax.lax.platform_dependent(query_BNTH, key_BNSH, value_BNSH, **kernels)
    shared = {name: lambda query, key, f=kernel: f(query, key, key) for name, kernel in kernels.items()}
    return jax.lax.platform_dependent(query_BNTH, key_BNSH, **shared)


def _fast_kernels(query_BNTH: Array, key_BNSH: Array) -> dict[str, Callable[..., Array]]:
    """Return the best implementation for these shapes on each platform that has one of its own."""
    kernels: dict[str, Callable[..., Array]] = {
        "cpu": _by_keys if query_BNTH.shape[2] < _FEW_QUERIES else _by_blocks
    }
    if fits_tpu_kernel(query_BNTH, key_BNSH):
        kernels["tpu"] = attend_on_tpu
    if fits_cudnn(query_BNTH):
        kernels["cuda"] = attend_with_cudnn
    return kernels


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero a fraction ``rate`` of ``x`` and rescale the rest; without a key, return ``x``."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def _whole(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Array:
    scores = jnp.einsum("bnth,bnsh->bnts", query, key, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    # The division of the softmax follows the second product, which saves a pass over the scores.
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    weights = dropout(weights, dropout_rate, dropout_key).astype(value.dtype)
    mixed = jnp.einsum("bnts,bnsh->bnth", weights, value, preferred_element_type=jnp.float32)
    return (mixed / total).astype(query.dtype)


def _by_blocks(query: Array, key: Array, value: Array) -> Array:
    """Attend with blocks of queries of one head at a time."""
    length, features = query.shape[2:]
    blocks = _block_count(length, key.shape[2])

    @jax.checkpoint  # recomputing the scores is cheaper than keeping them
    def head(one: tuple[Array, Array, Array]) -> Array:
        query_TH, key_SH, value_SH = one
        return jax.lax.map(
            lambda block: _whole(block[None, None], key_SH[None, None], value_SH[None, None])[0, 0],
            query_TH.reshape(blocks, length // blocks, features),
        ).reshape(length, features)

    return _map_heads(head, query, key, value)


def _by_keys(query: Array, key: Array, value: Array) -> Array:
    """Attend with a few queries of one head at a time.

    The keys are the left factor of the product, which is read in its order in memory. The compiler rearranges
    the right factor before a product; here this is the small array of queries.
    """

    def head(one: tuple[Array, Array, Array]) -> Array:
        query_TH, key_SH, value_SH = one
        scores_ST = jnp.einsum("sh,th->st", key_SH, query_TH, preferred_element_type=jnp.float32)
        weights_ST = jnp.exp(scores_ST - jax.lax.stop_gradient(scores_ST.max(axis=0)))
        mixed_TH = jnp.einsum(
            "st,sh->th", weights_ST.astype(value.dtype), value_SH, preferred_element_type=jnp.float32
        )
        return (mixed_TH / weights_ST.sum(axis=0)[:, None]).astype(query.dtype)

    return _map_heads(head, query, key, value)


def _map_heads(head: Callable[..., Array], query: Array, key: Array, value: Array) -> Array:
    given = (query, key) if value is key else (query, key, value)
    flat = tuple(x.reshape(-1, *x.shape[2:]) for x in given)
    return jax.lax.map(lambda one: head((one[0], one[1], one[-1])), flat).reshape(query.shape)


def _block_count(length: int, sources: int) -> int:
    """Return the smallest divisor of ``length`` whose blocks of scores fit ``_BLOCK_BYTES``."""
    wanted = math.ceil(4 * length * sources / _BLOCK_BYTES)
    return next(n for n in range(wanted, length + 1) if length % n == 0)
