"""The blocks of a Whisper layer: norm, feed-forward, and stacks of layers."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Array, Float
from flax_distil.core.param_sharding import ParamSharding
from flax_distil.model.attention import dropout
from flax_distil.model.collectives import (
    FSDP_GATHERED,
    copy_to_tp,
    fold_in_axis_index,
    fsdp_all_gather,
    reduce_from_tp,
)
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.projections import Linear

CHECKPOINT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""Policies of gradient checkpointing, which keep nothing of a layer, its products, or only its weight
products."""


def _keep_operands(function: Callable[..., Array], *operands: Array) -> Array:
    """Call a function that has no products; from operands of two bytes, the backward pass computes it again.

    Otherwise JAX would keep each of its steps in float32, and those of the branches for other platforms:
    compiled for a v4, layers of a trained encoder took 4.6 times the memory and 1.4 times the cycles.
    Operands in float32 are as large as the steps, and a CPU would take longer.
    """
    return (function if operands[0].dtype == jnp.float32 else jax.checkpoint(function))(*operands)


def _variance_in_two_passes(x: Array, mean: Array) -> Array:
    return jnp.square(x - mean).mean(axis=-1, keepdims=True)


def _variance_in_one_pass(x: Array, mean: Array) -> Array:
    return jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)


def _normalize(
    x: Float[Array, "... D"], scale: Float[Array, " D"], bias: Float[Array, " D"], epsilon: float
) -> Float[Array, "... D"]:
    x_f32, scale_f32, bias_f32 = (operand.astype(jnp.float32) for operand in (x, scale, bias))
    mean = x_f32.mean(axis=-1, keepdims=True)
    variance = jax.lax.platform_dependent(
        x_f32, mean, tpu=_variance_in_one_pass, default=_variance_in_two_passes
    )
    factor = jax.lax.rsqrt(variance + epsilon) * scale_f32
    return ((x_f32 - mean) * factor + bias_f32).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalization with statistics in float32.

    The variance is the mean square of the differences from the mean. On a TPU it is the mean square minus the
    squared mean, which needs only one pass and saves a tenth of the time of an encoder outside attention. In
    tiny.en and base the squared mean is at most 3.7 variances, so the relative error of the variance is 1e-6,
    where float32 alone has 3e-7.
    """

    def __init__(self, width: int, *, epsilon: float, dtype: str, rngs: nnx.Rngs):
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (width,)))
        self.bias = nnx.Param(nnx.initializers.zeros(rngs.params(), (width,)))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return ``x`` normalized to mean 0 and variance 1, then scaled and shifted, in the compute dtype."""
        x, scale, bias = (a.astype(self.dtype) for a in (x, self.scale[...], self.bias[...]))
        return _keep_operands(functools.partial(_normalize, epsilon=self.epsilon), x, scale, bias)


def layer_norm(width: int, *, dtype: str, rngs: nnx.Rngs) -> LayerNorm:
    """Return the layer norm of Whisper, with epsilon 1e-5."""
    return LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)


_ERF_AS_TANH = (-0.0003515173, 0.0370056495, 0.7975078802)
"""Coefficients p, for the highest power first, of erf(x / √2) = tanh(x p(x²))."""


def gelu(x: Array) -> Array:
    """Return the exact GELU; on a TPU, exact to two bytes where ``x`` is in bfloat16 or float16."""
    return 0.5 * twice_gelu(x)


def twice_gelu(x: Array) -> Array:
    """Return twice the GELU. To halve the fewer results of a product that follows is as exact."""
    return _keep_operands(_twice_gelu, x)


def _twice_gelu(x: Array) -> Array:
    if x.dtype == jnp.float32:
        return twice_gelu_by_erf(x)
    return jax.lax.platform_dependent(x, tpu=twice_gelu_by_tanh, default=twice_gelu_by_erf)


def twice_gelu_by_erf(x: Array) -> Array:
    """Return twice the GELU, computed with erf as in the reference implementation.

    ``jax.nn.gelu`` is the tanh approximation by default; its exact form uses erfc, which takes twice the time
    on a CPU.
    """
    return x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def twice_gelu_by_tanh(x: Array) -> Array:
    """Return twice the GELU; the GELU is off by 2.6e-5 at most, before it is rounded to the type of ``x``.

    A TPU has an instruction for tanh, and computes erf as a quotient of polynomials, which takes longer than
    the matrix units need for the product that follows. Here erf(x / √2) is the tanh of a polynomial of x, a
    minimax fit. Rounding to bfloat16 changes outputs by up to 4e-3 of their size. The usual tanh
    approximation, a polynomial of one term less, is off by 4.7e-4.
    """
    x_f32 = x.astype(jnp.float32)
    # At 25 the tanh is 1, and further on the polynomial would turn round.
    square = jnp.minimum(jnp.square(x_f32), 25.0)
    fourth, second, constant = _ERF_AS_TANH
    factor = (fourth * square + second) * square + constant
    return (x_f32 + x_f32 * jnp.tanh(x_f32 * factor)).astype(x.dtype)


def _apart_on_tpu(x: Array) -> Array:
    """Return ``x`` behind a barrier, so that a TPU does not fuse the operations before and after it.

    The compiler would fuse the two products of a feed-forward block into one, which takes 1.6 times as long
    (large-v2).
    """
    return jax.lax.platform_dependent(x, tpu=jax.lax.optimization_barrier, default=lambda x: x)


def feed_forward(
    fc1: Linear,
    fc2: Linear,
    x_BTD: Float[Array, "B T D"],
    activation_dropout: float,
    key: Array | None,
    *,
    axis: str | None = None,
) -> Float[Array, "B T D"]:
    """Return ``fc2(gelu(fc1(x)))`` with dropout on the activation.

    A device may hold only some of the features F; the results are then summed over the devices of ``axis``.
    """
    x_BTF = twice_gelu(_apart_on_tpu(fc1.add_bias(fc1.product(copy_to_tp(x_BTD, axis)))))
    x_BTF = dropout(x_BTF, activation_dropout, fold_in_axis_index(key, axis))
    return fc2.add_bias(reduce_from_tp(0.5 * fc2.product(x_BTF), axis))


def split_key(key: Array | None, count: int) -> list[Any]:
    """Split a random key into ``count`` keys; None (no dropout) gives as many None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def stack_of(make: Callable[[nnx.Rngs], nnx.Module], layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """Build one module that stacks ``layers`` modules; its parameters have a leading axis L."""
    return nnx.vmap(make, in_axes=0)(rngs.split(layers))


def layer_count(stack: nnx.Module) -> int:
    """Return the number L of layers in a stack that :func:`stack_of` made."""
    return jax.tree.leaves(nnx.state(stack))[0].shape[0]


def unstack(stack: Any, sharding: ParamSharding) -> list[Any]:
    """Return the layers of a stack or list as separate modules, with their stored pieces gathered."""
    if isinstance(stack, nnx.List):
        parts, apart = [nnx.split(layer) for layer in stack], True
    else:
        graph, stacked = nnx.split(stack)
        slices = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(layer_count(stack))]
        parts, apart = [(graph, layer) for layer in slices], False
    return [nnx.merge(graph, fsdp_all_gather(layer, sharding, apart=apart)) for graph, layer in parts]


def run_stack(
    stack: nnx.Module,
    apply: Callable[[Any, Array, Array | None], Array],
    x_BTD: Float[Array, "B T D"],
    *,
    options: ComputeOptions,
    key: Array | None,
    collect_layers: bool = False,
) -> tuple[Float[Array, "B T D"], Float[Array, "L B T D"] | None]:
    """Run ``x = apply(layer, x, key)`` through a stack of layers.

    Returns:
        The output of the last layer, and the outputs of all layers in order, or None unless asked for.
    """
    graph, stacked = nnx.split(stack)
    count = layer_count(stack)

    def body(x: Array, layer: tuple[Any, Array | None]) -> tuple[Array, Array | None]:
        parameters, layer_key = layer
        x = apply(nnx.merge(graph, fsdp_all_gather(parameters, options.sharding)), x, layer_key)
        return x, x if collect_layers else None

    if options.gradient_checkpointing is not None:
        body = jax.checkpoint(body, policy=CHECKPOINT_POLICIES[options.gradient_checkpointing])
    elif options.sharding.gather_axis is not None:  # otherwise all gathered layers would be in memory at once
        without = jax.checkpoint_policies.save_anything_except_these_names(FSDP_GATHERED)
        body = jax.checkpoint(body, policy=without)
    keys = None if key is None else jax.random.split(key, count)
    if options.use_scan:
        return jax.lax.scan(body, x_BTD, (stacked, keys))
    outputs: list[Any] = []
    for index in range(count):
        layer = jax.tree.map(lambda leaf, i=index: leaf[i], (stacked, keys))
        x_BTD, output = body(x_BTD, layer)
        outputs.append(output)
    return x_BTD, jnp.stack(outputs) if collect_layers else None
