"""Attention kernels of accelerators, for many queries that all attend to every key."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flax_distil.core.arrays import Array, Float

_LANES = 128
"""Width of a TPU register; the last axis of a block is a multiple of it."""

_SUBLANES = 8
"""Rows of float32 numbers in a TPU register."""

_BLOCK = 512
"""Number of queries of one step backward, whose scores for all keys stay on the chip: 3 MiB for 1500 keys."""

_FORWARD_BLOCK = 1536
"""Number of queries of one step forward: all of a head, or those of several heads if they are few."""

_TILE = 32
"""Keys whose weights are made at a time, so that they stay in registers."""


class _Sizes(NamedTuple):
    """How a step forward is divided.

    Attributes:
        part: Number of queries whose scores are made while the weights of others are used.
        chunk: Number of keys of one product with the values.
    """

    part: int
    chunk: int


_SIZES = {"TPU v5 lite": _Sizes(part=512, chunk=768), "TPU v6 lite": _Sizes(part=512, chunk=768)}
_OTHER_SIZES = _Sizes(part=384, chunk=256)
"""The best for a chip, by the compiler's schedules, of those that were tried; the others are those of a v4. A
v5e takes a tenth less than with these, a v6e a twelfth, and a v4 with theirs takes a seventh more."""

_FEWEST_QUERIES = 128
_MOST_KEYS = 2048
_MOST_FEATURES = 128
"""Limits of the TPU kernel: outside of them a step wastes its block, or exceeds the 16 MiB of a TPU core."""


def fits_tpu_kernel(query: Array, key: Array) -> bool:
    """Return whether :func:`attend_on_tpu` accepts these shapes [B, N, T, H] and [B, N, S, H]."""
    queries, features = query.shape[2:]
    return queries >= _FEWEST_QUERIES and key.shape[2] <= _MOST_KEYS and features <= _MOST_FEATURES


@functools.partial(jax.custom_vjp, nondiff_argnames=("interpret",))
def attend_on_tpu(
    query_BNTH: Float[Array, "B N T H"],
    key_BNSH: Float[Array, "B N S H"],
    value_BNSH: Float[Array, "B N S H"],
    interpret: bool = False,
) -> Float[Array, "B N T H"]:
    """Return ``softmax(q kᵀ) v`` with a Pallas kernel for TPU; scores never leave the chip.

    A step holds a block of queries and all keys of a head, so the softmax needs no running maximum. Blocks
    reach beyond the end of arrays whose length is not a multiple of 128. The kernel masks what it reads
    there, and what it writes there is dropped, so no array is padded. Inside the kernel, positions are the
    last axis, because 64 features would fill only half of a register.

    Args:
        query_BNTH: Queries, already scaled.
        key_BNSH: Keys.
        value_BNSH: Values.
        interpret: Whether to run the kernel as plain JAX, without a TPU.
    """
    return _forward(query_BNTH, key_BNSH, value_BNSH, interpret, with_logsumexp=False)[0]


def _forward(
    query: Array, key: Array, value: Array, interpret: bool, *, with_logsumexp: bool
) -> tuple[Array, ...]:
    rows, heads, queries, features = query.shape
    keys = key.shape[2]
    block = min(_FORWARD_BLOCK, _round_up(queries))
    together = max(n for n in range(1, heads + 1) if heads % n == 0 and n * block <= max(_BLOCK, block))
    by_block = pl.BlockSpec((None, together, features, block), lambda row, head, step: (row, head, 0, step))
    row_by_block = pl.BlockSpec((None, together, 1, block), lambda row, head, step: (row, head, 0, step))
    whole = pl.BlockSpec(
        (None, together, features, _round_up(keys)), lambda row, head, step: (row, head, 0, 0)
    )
    mixed_BNHT = jax.ShapeDtypeStruct((rows, heads, features, queries), query.dtype)
    logsumexp_BN1T = jax.ShapeDtypeStruct((rows, heads, 1, queries), jnp.float32)
    mixed, *rest = pl.pallas_call(
        functools.partial(_forward_kernel, keys=keys, sizes=_sizes()),
        grid=(rows, heads // together, pl.cdiv(queries, block)),
        in_specs=[by_block, whole, whole],
        out_specs=[by_block, row_by_block][: 1 + with_logsumexp],
        out_shape=[mixed_BNHT, logsumexp_BN1T][: 1 + with_logsumexp],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        name="attention_forward",
        interpret=interpret,
    )(*(x.swapaxes(2, 3) for x in (query, key, value)))
    return mixed.swapaxes(2, 3), *rest


def _forward_and_residuals(
    query: Array, key: Array, value: Array, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    mixed, logsumexp_BN1T = _forward(query, key, value, interpret, with_logsumexp=True)
    return mixed, (query, key, value, mixed, logsumexp_BN1T)


def _backward(interpret: bool, residuals: tuple[Array, ...], slope_BNTH: Array) -> tuple[Array, Array, Array]:
    query, key, value, mixed, logsumexp_BN1T = residuals
    rows, heads, queries, features = query.shape
    keys = key.shape[2]
    block = min(_BLOCK, _round_up(queries))
    by_block, row_by_block, whole = _specs(features, block, keys)
    turned = [x.swapaxes(2, 3) for x in (query, key, value, mixed, slope_BNTH)]
    sums = pltpu.VMEM((features, _round_up(keys)), jnp.float32)
    slopes = pl.pallas_call(
        functools.partial(_backward_kernel, queries=queries, keys=keys, block=block),
        grid=(rows, heads, pl.cdiv(queries, block)),
        in_specs=[by_block, whole, whole, by_block, by_block, row_by_block],
        out_specs=[by_block, whole, whole],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in turned[:3]],
        scratch_shapes=[sums, sums],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        name="attention_backward",
        interpret=interpret,
    )(*turned, logsumexp_BN1T)
    query_slope, key_slope, value_slope = (x.swapaxes(2, 3) for x in slopes)
    return query_slope, key_slope, value_slope


attend_on_tpu.defvjp(_forward_and_residuals, _backward)


def _sizes() -> _Sizes:
    """Return the sizes for the device that is compiled for: that of the mesh, or else JAX's first one."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.local_devices()[0]
    return _SIZES.get(device.device_kind, _OTHER_SIZES)


def _round_up(length: int) -> int:
    return pl.cdiv(length, _LANES) * _LANES


def _specs(features: int, block: int, keys: int) -> tuple[pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
    """Return the block specs of one step: features by query, scalars by query, and features by key."""
    return (
        pl.BlockSpec((None, None, features, block), lambda row, head, step: (row, head, 0, step)),
        pl.BlockSpec((None, None, 1, block), lambda row, head, step: (row, head, 0, step)),
        pl.BlockSpec((None, None, features, _round_up(keys)), lambda row, head, step: (row, head, 0, 0)),
    )


def _dot(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    contract = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, contract, preferred_element_type=jnp.float32)


def _first(count: Array | int, x_XY: Array, otherwise: float = 0.0) -> Array:
    """Replace entries from ``count`` on along the last axis, where a block may have read NaN."""
    if isinstance(count, int) and count >= x_XY.shape[1]:
        return x_XY
    real_1Y = jax.lax.broadcasted_iota(jnp.int32, (1, x_XY.shape[1]), 1) < count
    return jnp.where(real_1Y, x_XY.astype(jnp.float32), otherwise).astype(x_XY.dtype)


def _scores(key_HS: Array, query_HQ: Array, keys: int) -> Array:
    """Return scores [S, Q] in float32, with the lowest number from row ``keys`` on."""
    scores_SQ = _dot(key_HS, query_HQ, 0, 0)
    if keys >= scores_SQ.shape[0]:
        return scores_SQ
    real_S1 = jax.lax.broadcasted_iota(jnp.int32, (scores_SQ.shape[0], 1), 0) < keys
    return jnp.where(real_S1, scores_SQ, jnp.finfo(jnp.float32).min)


def _forward_kernel(  # type: ignore[no-untyped-def]
    query_ref, key_ref, value_ref, mixed_ref, *logsumexp_ref, keys: int, sizes: _Sizes
) -> None:
    """Attend part after part of the queries.

    While the vector unit makes the weights of one part, the matrix unit makes the scores of the next one. The
    compiler overlaps them because they do not depend on each other.
    """
    heads, _, block = query_ref.shape
    size = _round_up(pl.cdiv(block, pl.cdiv(block, sizes.part)))
    parts = [
        (head, slice(at, min(at + size, block))) for head in range(heads) for at in range(0, block, size)
    ]
    length = key_ref.shape[2]
    chunks = [slice(at, min(at + sizes.chunk, length)) for at in range(0, length, sizes.chunk)]

    def chunk_scores(part: tuple[int, slice], chunk: slice) -> Array:
        head, at = part
        return _scores(key_ref[head, :, chunk], query_ref[head, :, at], keys - chunk.start)

    scores = [chunk_scores(parts[0], chunk) for chunk in chunks]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        head, at = part
        highest_1Q = functools.reduce(jnp.maximum, map(_highest_8Q, scores)).max(axis=0, keepdims=True)
        total_8Q = mixed_HQ = jnp.zeros((), jnp.float32)
        next_scores = []
        for chunk, scores_SQ in zip(chunks, scores, strict=True):
            if following is not None:
                next_scores.append(chunk_scores(following, chunk))
            value_HS = _first(keys - chunk.start, value_ref[head, :, chunk])
            weights = []
            for tile in range(0, scores_SQ.shape[0], _TILE):
                weights_SQ = jnp.exp(scores_SQ[tile : tile + _TILE] - highest_1Q)
                total_8Q += weights_SQ.reshape(-1, _SUBLANES, weights_SQ.shape[1]).sum(axis=0)
                weights.append(weights_SQ)
            # To two bytes all at once: a v5e would pack, unpack and pack again each tile of its own.
            mixed_HQ += _dot(value_HS, jnp.concatenate(weights).astype(value_HS.dtype), 1, 0)
        total_1Q = total_8Q.sum(axis=0, keepdims=True)
        mixed_ref[head, :, at] = (mixed_HQ / total_1Q).astype(mixed_ref.dtype)
        for ref in logsumexp_ref:
            ref[head, :, at] = highest_1Q + jnp.log(total_1Q)
        scores = next_scores


def _highest_8Q(scores_SQ: Array) -> Array:
    """Return the maximum of every eighth row; rows of one register would have to be rotated for more."""
    return scores_SQ.reshape(-1, _SUBLANES, scores_SQ.shape[1]).max(axis=0)


class _BackwardRefs(NamedTuple):
    """Blocks that Pallas passes to the backward kernel: its inputs, its outputs and its scratch arrays."""

    query: Any
    key: Any
    value: Any
    mixed: Any
    slope: Any
    logsumexp: Any
    query_slope: Any
    key_slope: Any
    value_slope: Any
    key_sum: Any
    value_sum: Any


def _backward_kernel(*arrays: Any, queries: int, keys: int, block: int) -> None:
    refs = _BackwardRefs(*arrays)
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _() -> None:
        refs.key_sum[...] = jnp.zeros_like(refs.key_sum)
        refs.value_sum[...] = jnp.zeros_like(refs.value_sum)

    left = queries if queries % block == 0 else queries - step * block
    query_HQ, slope_HQ = _first(left, refs.query[...]), _first(left, refs.slope[...])
    key_HS, value_HS = _first(keys, refs.key[...]), _first(keys, refs.value[...])
    # Queries beyond the last one have weight 0, which is exp(0 - the largest number).
    logsumexp_1Q = _first(left, refs.logsumexp[...], float(jnp.finfo(jnp.float32).max))
    weights_SQ = jnp.exp(_scores(key_HS, query_HQ, keys) - logsumexp_1Q)
    refs.value_sum[...] += _dot(slope_HQ, weights_SQ.astype(slope_HQ.dtype), 1, 1)
    slope_f32_HQ = slope_HQ.astype(jnp.float32)
    mean_1Q = (_first(left, refs.mixed[...]).astype(jnp.float32) * slope_f32_HQ).sum(axis=0, keepdims=True)
    score_slope_SQ = (weights_SQ * (_dot(value_HS, slope_HQ, 0, 0) - mean_1Q)).astype(query_HQ.dtype)
    refs.query_slope[...] = _dot(key_HS, score_slope_SQ, 1, 0).astype(refs.query_slope.dtype)
    refs.key_sum[...] += _dot(query_HQ, score_slope_SQ, 1, 1)

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        refs.key_slope[...] = refs.key_sum[...].astype(refs.key_slope.dtype)
        refs.value_slope[...] = refs.value_sum[...].astype(refs.value_slope.dtype)


def fits_cudnn(query: Array) -> bool:
    """Return whether :func:`attend_with_cudnn` accepts queries [B, N, T, H] on this machine.

    It can be traced only where JAX runs on an NVIDIA GPU with cuDNN and compute capability 8.0 or later.
    """
    device = jax.local_devices()[0]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and query.shape[3] % 8 == 0
        and query.shape[3] <= _MOST_FEATURES
        and "cuda" in device.client.platform_version
        and float(device.compute_capability) >= 8.0
    )


def attend_with_cudnn(
    query_BNTH: Float[Array, "B N T H"],
    key_BNSH: Float[Array, "B N S H"],
    value_BNSH: Float[Array, "B N S H"],
) -> Float[Array, "B N T H"]:
    """Return ``softmax(q kᵀ) v`` of half-precision arrays with the flash attention of cuDNN."""
    turned = (x.swapaxes(1, 2) for x in (query_BNTH, key_BNSH, value_BNSH))
    return jax.nn.dot_product_attention(*turned, scale=1.0, implementation="cudnn").swapaxes(1, 2)
