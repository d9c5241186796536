"""The blocks of a Whisper layer: norm, feed-forward, and stacks of layers."""

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
"""What gradient checkpointing keeps of a layer: nothing, its products, or only its weight products."""


def _variance_in_two_passes(x: Array, mean: Array) -> Array:
    return jnp.square(x - mean).mean(axis=-1, keepdims=True)


def _variance_in_one_pass(x: Array, mean: Array) -> Array:
    return jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)


class LayerNorm(nnx.Module):
    """Layer normalisation with statistics in float32.

    The variance is the mean square of what is left without the mean. A TPU takes the mean square less the
    squared mean, in the pass that sums for the mean: a tenth of an encoder's time outside attention.
    Of tiny.en and base the squared mean is at most 3.7 variances, so that costs 1e-6 of the variance where
    float32 leaves 3e-7.
    """

    def __init__(self, width: int, *, epsilon: float, dtype: str, rngs: nnx.Rngs):
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (width,)))
        self.bias = nnx.Param(nnx.initializers.zeros(rngs.params(), (width,)))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return ``x`` of mean 0 and variance 1, scaled and shifted, in the compute dtype."""
        x = x.astype(self.dtype).astype(jnp.float32)
        mean = x.mean(axis=-1, keepdims=True)
        variance = jax.lax.platform_dependent(
            x, mean, tpu=_variance_in_one_pass, default=_variance_in_two_passes
        )
        scale, bias = (p[...].astype(self.dtype).astype(jnp.float32) for p in (self.scale, self.bias))
        return ((x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias).astype(self.dtype)


def layer_norm(width: int, *, dtype: str, rngs: nnx.Rngs) -> LayerNorm:
    """Return Whisper's layer norm, of epsilon 1e-5."""
    return LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)


def gelu(x: Array) -> Array:
    """Return the exact GELU, written with erf as the reference is.

    ``jax.nn.gelu`` is the tanh approximation by default, and otherwise takes erfc, twice the time on a CPU.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def _apart_on_tpu(x: Array) -> Array:
    """Keep what makes ``x`` and what reads it from becoming one operation on a TPU.

    Its compiler nests the two products of a feed-forward in one, which takes 1.6 times their time (large-v2).
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

    The features F may be some of all: the devices of ``axis`` add up what theirs give.
    """
    x_BTF = gelu(_apart_on_tpu(fc1.add_bias(fc1.product(copy_to_tp(x_BTD, axis)))))
    x_BTF = dropout(x_BTF, activation_dropout, fold_in_axis_index(key, axis))
    return fc2.add_bias(reduce_from_tp(fc2.product(x_BTF), axis))


def split_key(key: Array | None, count: int) -> list[Any]:
    """Split a random key into ``count``; None (no dropout) into as many None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def stack_of(make: Callable[[nnx.Rngs], nnx.Module], layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """Build ``layers`` modules as one whose parameters have a leading axis L."""
    return nnx.vmap(make, in_axes=0)(rngs.split(layers))


def layer_count(stack: nnx.Module) -> int:
    """Return the length L of a stack made by :func:`stack_of`."""
    return jax.tree.leaves(nnx.state(stack))[0].shape[0]


def unstack(stack: Any, sharding: ParamSharding) -> list[Any]:
    """Return the layers of a stack or a list as modules of their own, their stored pieces put together."""
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
        The last layer's output and, if asked for, every layer's output in order.
    """
    graph, stacked = nnx.split(stack)
    count = layer_count(stack)

    def body(x: Array, layer: tuple[Any, Array | None]) -> tuple[Array, Array | None]:
        parameters, layer_key = layer
        x = apply(nnx.merge(graph, fsdp_all_gather(parameters, options.sharding)), x, layer_key)
        return x, x if collect_layers else None

    if options.gradient_checkpointing is not None:
        body = jax.checkpoint(body, policy=CHECKPOINT_POLICIES[options.gradient_checkpointing])
    elif options.sharding.gather_axis is not None:  # or all layers would be whole at once after all
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
