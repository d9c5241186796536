"""Kernels of a layer with int8 weights for TPU: everything before attention, and everything behind it.

As separate operations, quantizing activations would cost about what the products save: a pass for the
largest value of each token, another to round, and the GELU, which the compiler does not run beside
a product then. Inside a kernel the vector units do this while the matrix units multiply, and all weights stay
on the chip.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flax_distil.core.arrays import Array, Float
from flax_distil.model.int8.products import quantize, quantize_twice_gelu
from flax_distil.model.layers import twice_gelu_by_tanh

_LANES = 128
_FEWEST_TOKENS = 128
_TOKENS_BEFORE, _TOKENS_BEHIND = 512, 256
"""Numbers of tokens of one step, before attention and behind it."""

_VMEM_BYTES = 56 << 20
"""What a kernel may take of a core's own memory: 64 MiB on a TPU7x, 128 MiB on v5e and v6e."""


class Int8Weights(NamedTuple):
    """A projection: int8 kernel [inputs, outputs], float32 scales and biases [outputs]."""

    kernel: Array
    scale: Array
    bias: Array


class NormWeights(NamedTuple):
    """Scale and bias of a layer norm, [D]."""

    scale: Array
    bias: Array


def fits_int8_kernels(x_BTD: Array, features: int) -> bool:
    """Return whether the kernels accept activations of this shape, with so many feed-forward features."""
    tokens, width = x_BTD.shape[1:]
    return tokens >= _FEWEST_TOKENS and width % _LANES == 0 and features % width == 0


def project_on_tpu(
    x_BTD: Float[Array, "B T D"],
    norm: NormWeights | None,
    weights: Sequence[Int8Weights],
    *,
    interpret: bool = False,
) -> Sequence[Float[Array, "B E T"]]:
    """Return projections of the same tokens, with positions as the last axis, as attention reads them.

    Args:
        x_BTD: Activations.
        norm: Layer norm before the products; None for none.
        weights: Projections, [D, E].
        interpret: Whether to run the kernel as plain JAX, without a TPU.
    """
    rows, tokens, width = x_BTD.shape
    block = min(_TOKENS_BEFORE, _round_up(tokens))
    arguments = [x_BTD] + ([] if norm is None else [leaf.astype(jnp.float32)[None] for leaf in norm])
    for part in weights:
        arguments += [part.kernel.T, *(leaf.astype(jnp.float32)[:, None] for leaf in part[1:])]
    sizes = [part.scale.shape[0] for part in weights]
    return pl.pallas_call(
        functools.partial(_project, has_norm=norm is not None, count=len(weights)),
        grid=(rows, pl.cdiv(tokens, block)),
        in_specs=[_by_token(width, block), *(_whole(leaf.shape) for leaf in arguments[1:])],
        out_specs=[_by_position(size, block) for size in sizes],
        out_shape=[jax.ShapeDtypeStruct((rows, size, tokens), x_BTD.dtype) for size in sizes],
        cost_estimate=_cost(arguments, rows * tokens, sum(sizes), products=width * sum(sizes)),
        name="int8_projections",
        **_options(interpret),
    )(*arguments)


def finish_layer_on_tpu(
    mixed_BET: Float[Array, "B E T"],
    x_BTD: Float[Array, "B T D"],
    out: Int8Weights,
    norm: NormWeights,
    fc1: Int8Weights,
    fc2: Int8Weights,
    *,
    interpret: bool = False,
) -> Float[Array, "B T D"]:
    """Return the output of a layer from that of its last attention: ``y = x + out(mixed)``, and

    ``y + fc2(gelu(fc1(norm(y))))``.

    Args:
        mixed_BET: Weighted means of attention, heads and their features in one axis.
        x_BTD: What the layer had before its last attention.
        out: Output projection of attention, [E, D].
        norm: Layer norm before the feed-forward block.
        fc1: First projection of the block, [D, F].
        fc2: Second projection of the block, [F, D].
        interpret: Whether to run the kernel as plain JAX, without a TPU.
    """
    rows, tokens, width = x_BTD.shape
    inputs, features, block = mixed_BET.shape[1], fc1.scale.shape[0], min(_TOKENS_BEHIND, _round_up(tokens))
    vectors = [
        [leaf.astype(jnp.float32)[None] for leaf in part] for part in (out[1:], norm, fc1[1:], fc2[1:])
    ]
    fc2_sums = fc2.kernel.astype(jnp.int32).sum(axis=0, keepdims=True).astype(jnp.float32)
    weights = (
        out.kernel, *vectors[0], *vectors[1], fc1.kernel, *vectors[2], fc2.kernel, *vectors[3], fc2_sums
    )  # fmt: skip
    return pl.pallas_call(
        functools.partial(_finish_layer, chunk=width),
        grid=(rows, pl.cdiv(tokens, block)),
        in_specs=[
            _by_position(inputs, block), _by_token(width, block), *(_whole(leaf.shape) for leaf in weights)
        ],
        out_specs=_by_token(width, block),
        out_shape=jax.ShapeDtypeStruct(x_BTD.shape, x_BTD.dtype),
        input_output_aliases={1: 0},  # or a loop over layers would copy x, which is read until y is written
        scratch_shapes=[pltpu.VMEM((block, features), jnp.float32)],
        cost_estimate=_cost(
            (mixed_BET, x_BTD, *weights), rows * tokens, width, products=(inputs + 2 * features) * width
        ),
        name="int8_finish_layer",
        **_options(interpret),
    )(mixed_BET, x_BTD, *weights)  # fmt: skip


def _project(x_ref: Any, *refs: Any, has_norm: bool, count: int) -> None:
    norm, weights, outputs = refs[: 2 * has_norm], refs[2 * has_norm : -count], refs[-count:]
    x_TD = x_ref[...].astype(jnp.float32)
    if has_norm:
        x_TD = _normalized(x_TD, *norm)
    integers_TD, by_token_T1 = quantize(x_TD, (1,))
    by_token_1T = jnp.broadcast_to(by_token_T1, (x_TD.shape[0], _LANES)).T[:1]
    for number, out_ref in enumerate(outputs):
        kernel_ref, scale_ref, bias_ref = weights[3 * number : 3 * number + 3]
        sums_ET = _products(kernel_ref[...], integers_TD, 1).astype(jnp.float32)
        y_ET = sums_ET * by_token_1T * scale_ref[...] + bias_ref[...]
        out_ref[...] = y_ET.astype(out_ref.dtype)


def _finish_layer(mixed_ref: Any, x_ref: Any, *refs: Any, chunk: int) -> None:
    out, norm = Int8Weights(*refs[:3]), NormWeights(*refs[3:5])
    fc1, fc2 = Int8Weights(*refs[5:8]), Int8Weights(*refs[8:11])
    fc2_sums_ref, y_ref, gelu_ref = refs[11:]
    y_TD = x_ref[...].astype(jnp.float32) + _affine(quantize(mixed_ref[...].astype(jnp.float32).T, (1,)), out)
    normalized = quantize(_normalized(y_TD, *norm), (1,))
    largest_T1 = jnp.full((y_TD.shape[0], 1), -jnp.inf)
    for first in range(0, fc1.kernel.shape[1], chunk):
        part = slice(first, first + chunk)
        x_TF = twice_gelu_by_tanh(_affine(normalized, fc1, part))
        gelu_ref[:, part] = x_TF
        largest_T1 = jnp.maximum(largest_T1, x_TF.max(axis=1, keepdims=True))
    integers_TF, by_token_T1, middle_T1 = quantize_twice_gelu(gelu_ref[...], largest_T1)
    products_TD = _products(integers_TF, fc2.kernel[...], 0).astype(jnp.float32) * by_token_T1
    products_TD += middle_T1 * fc2_sums_ref[...]
    y_ref[...] = (y_TD + 0.5 * products_TD * fc2.scale[...] + fc2.bias[...]).astype(y_ref.dtype)


def _affine(quantized: tuple[Array, Array], weights: Int8Weights, part: slice = slice(None)) -> Array:
    """Return a projection of quantized tokens, or a part of its outputs."""
    integers, by_token_T1 = quantized
    y_TE = _products(integers, weights.kernel[:, part], 0).astype(jnp.float32) * by_token_T1
    return y_TE * weights.scale[:, part] + weights.bias[:, part]


def _products(left: Array, right: Array, right_axis: int) -> Array:
    """Return products of integers, summed in int32."""
    contract = (((1,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, contract, preferred_element_type=jnp.int32)


def _normalized(x_TD: Array, scale_ref: Any, bias_ref: Any) -> Array:
    mean_T1 = x_TD.mean(axis=1, keepdims=True)
    variance_T1 = jnp.maximum(jnp.square(x_TD).mean(axis=1, keepdims=True) - jnp.square(mean_T1), 0.0)
    return (x_TD - mean_T1) * jax.lax.rsqrt(variance_T1 + 1e-5) * scale_ref[...] + bias_ref[...]


def _round_up(tokens: int) -> int:
    return pl.cdiv(tokens, _LANES) * _LANES


def _by_token(width: int, block: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, block, width), lambda row, step: (row, step, 0))


def _by_position(outputs: int, block: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, outputs, block), lambda row, step: (row, 0, step))


def _whole(shape: tuple[int, ...]) -> pl.BlockSpec:
    return pl.BlockSpec(shape, lambda row, step: (0, 0), pipeline_mode=pl.Buffered(1))


def _options(interpret: bool) -> dict[str, Any]:
    compiler = pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM_BYTES
    )
    return {"compiler_params": compiler, "interpret": interpret}


def _cost(arguments: Sequence[Array], tokens: int, outputs: int, *, products: int) -> pl.CostEstimate:
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in arguments)
    written = tokens * outputs * arguments[0].dtype.itemsize
    return pl.CostEstimate(flops=2 * tokens * products, bytes_accessed=size + written, transcendentals=0)
