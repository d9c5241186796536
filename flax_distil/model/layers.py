"""The blocks of a Whisper layer: projections into heads, feed-forward, and stacks of layers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core import WHOLE, Array, Float, InputError, WeightLayout
from flax_distil.model.attention import dropout
from flax_distil.model.collectives import STORED_PIECE, enter, gather_layer, leave, own_key

_initializer = nnx.initializers.normal(0.02)

CHECKPOINT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What gradient checkpointing keeps of a layer: nothing, its products, or only its weight products."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How a model computes, apart from its shape.

    Attributes:
        dtype: of activations and of the weights as used ("float32", "bfloat16", "float16");
            norms, softmax and losses stay in float32.
        use_scan: run the layers as one ``lax.scan``: compiles in the time of one layer.
        gradient_checkpointing: name of a policy in ``CHECKPOINT_POLICIES``: recompute each
            layer in the backward pass; None keeps every activation.
        layout: which pieces of the weights are given, inside ``shard_map``; by default all.
    """

    dtype: str = "float32"
    use_scan: bool = True
    gradient_checkpointing: str | None = None
    layout: WeightLayout = WHOLE

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype {self.dtype!r} is unknown: expected float32, bfloat16 or float16")
        if self.gradient_checkpointing not in (None, *CHECKPOINT_POLICIES):
            raise InputError(
                f"gradient_checkpointing {self.gradient_checkpointing!r} is unknown: "
                f"expected one of {', '.join(CHECKPOINT_POLICIES)}"
            )


_FEW_ROWS = 64
"""Up to so many queries of single heads, a product eight or more times as large costs less than order."""


class SplitHeads(nnx.Module):
    """Project [B, T, D] into heads [B, N, T, H].

    One contraction, which a TPU writes in the layout that attention reads. On a CPU one plain product of
    matrices: given the contraction, XLA's CPU compiler multiplies the transposes in twice the time.
    """

    def __init__(self, width: int, heads: int, *, use_bias: bool, dtype: str, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_initializer(rngs.params(), (width, heads, width // heads)))
        self.bias = nnx.Param(jnp.zeros((heads, width // heads))) if use_bias else None
        self.dtype = dtype

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B N T H"]:
        """Return the projection in the compute dtype."""

        def contract(x_BTD: Array, kernel_DNH: Array) -> Array:
            return jnp.einsum("btd,dnh->bnth", x_BTD, kernel_DNH)

        def multiply(x_BTD: Array, kernel_DNH: Array) -> Array:
            y_BTE = x_BTD @ kernel_DNH.reshape(kernel_DNH.shape[0], -1)
            return y_BTE.reshape(*x_BTD.shape[:2], *kernel_DNH.shape[1:]).swapaxes(1, 2)

        kernel_DNH = self.kernel[...].astype(self.dtype)
        return self._with_bias(jax.lax.platform_dependent(x_BTD, kernel_DNH, cpu=multiply, default=contract))

    def transposed(self, y_BNTH: Float[Array, "B N T H"]) -> Float[Array, "B N T D"]:
        """Return what has the same product with inputs as ``y_BNTH`` with their projection (no bias)."""

        def contract(y_BNTH: Array, kernel_DNH: Array) -> Array:
            return jnp.einsum("bnth,dnh->bntd", y_BNTH, kernel_DNH)

        def multiply(y_BNTH: Array, kernel_DNH: Array) -> Array:
            heads = y_BNTH.shape[1]
            y_BNTNH = y_BNTH[:, :, :, None] * jnp.eye(heads, dtype=y_BNTH.dtype)[:, None, :, None]
            y_RE = y_BNTNH.reshape(-1, heads * y_BNTH.shape[3])
            y_RD = jnp.einsum("re,de->rd", y_RE, kernel_DNH.reshape(len(kernel_DNH), -1))
            return y_RD.reshape(*y_BNTH.shape[:3], -1)

        return self._head_by_head(y_BNTH, multiply, contract)

    def of_heads(self, x_BNTD: Float[Array, "B N T D"]) -> Float[Array, "B N T H"]:
        """Project inputs that already differ from head to head."""

        def contract(x_BNTD: Array, kernel_DNH: Array) -> Array:
            return jnp.einsum("bntd,dnh->bnth", x_BNTD, kernel_DNH)

        def multiply(x_BNTD: Array, kernel_DNH: Array) -> Array:
            y_RE = x_BNTD.reshape(-1, len(kernel_DNH)) @ kernel_DNH.reshape(len(kernel_DNH), -1)
            y_BNTNH = y_RE.reshape(*x_BNTD.shape[:3], *kernel_DNH.shape[1:])
            return jnp.einsum("bntnh->bnth", y_BNTNH)

        return self._with_bias(self._head_by_head(x_BNTD, multiply, contract))

    def _head_by_head(
        self, x: Array, multiply: Callable[[Array, Array], Array], contract: Callable[[Array, Array], Array]
    ) -> Array:
        """Multiply every head by its part of the kernel.

        On a CPU a few rows are multiplied by the whole kernel as it lies, for all heads and not only their
        own: given the contraction, its compiler turns the kernel round in every step of a decoding loop.
        """
        is_few = math.prod(x.shape[:3]) <= _FEW_ROWS
        kernel_DNH = self.kernel[...].astype(self.dtype)
        return jax.lax.platform_dependent(
            x, kernel_DNH, cpu=multiply if is_few else contract, default=contract
        )

    def _with_bias(self, y_BNTH: Array) -> Array:
        return y_BNTH if self.bias is None else y_BNTH + self.bias[...].astype(self.dtype)[:, None]


class MergeHeads(nnx.Module):
    """Project heads [B, N, T, H] back to [B, T, D]; two ways, as :class:`SplitHeads`.

    The heads may be some of all: what the devices of ``axis`` make of theirs is added up.
    """

    def __init__(self, width: int, heads: int, *, dtype: str, axis: str | None, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_initializer(rngs.params(), (heads, width // heads, width)))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.dtype, self.axis = dtype, axis

    def __call__(self, x_BNTH: Float[Array, "B N T H"]) -> Float[Array, "B T D"]:
        """Return the projection in the compute dtype."""

        def contract(x_BNTH: Array, kernel_NHD: Array) -> Array:
            return jnp.einsum("bnth,nhd->btd", x_BNTH, kernel_NHD)

        def multiply(x_BNTH: Array, kernel_NHD: Array) -> Array:
            x_BTE = x_BNTH.swapaxes(1, 2).reshape(x_BNTH.shape[0], x_BNTH.shape[2], -1)
            return x_BTE @ kernel_NHD.reshape(-1, kernel_NHD.shape[2])

        kernel_NHD = self.kernel[...].astype(self.dtype)
        y_BTD = jax.lax.platform_dependent(x_BNTH, kernel_NHD, cpu=multiply, default=contract)
        return leave(y_BTD, self.axis) + self.bias[...].astype(self.dtype)


class AttentionProjections(nnx.Module):
    """Query, key (no bias), value and output projections of one attention."""

    def __init__(self, width: int, heads: int, *, dtype: str, axis: str | None, rngs: nnx.Rngs):
        self.query = SplitHeads(width, heads, use_bias=True, dtype=dtype, rngs=rngs)
        self.key = SplitHeads(width, heads, use_bias=False, dtype=dtype, rngs=rngs)
        self.value = SplitHeads(width, heads, use_bias=True, dtype=dtype, rngs=rngs)
        self.out = MergeHeads(width, heads, dtype=dtype, axis=axis, rngs=rngs)


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
    fc1: nnx.Linear,
    fc2: nnx.Linear,
    x_BTD: Float[Array, "B T D"],
    activation_dropout: float,
    key: Array | None,
    *,
    axis: str | None = None,
) -> Float[Array, "B T D"]:
    """Return ``fc2(gelu(fc1(x)))`` with dropout on the activation.

    The features F may be some of all: the devices of ``axis`` add up what theirs give.
    """
    x_BTF = gelu(_apart_on_tpu(fc1(enter(x_BTD, axis))))
    x_BTF = dropout(x_BTF, activation_dropout, own_key(key, axis))
    y_BTD = leave(x_BTF @ fc2.kernel[...].astype(x_BTF.dtype), axis)
    bias: Any = fc2.bias
    return y_BTD + bias[...].astype(x_BTF.dtype)


def split_key(key: Array | None, count: int) -> list[Any]:
    """Split a random key into ``count``; None (no dropout) into as many None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def stack_of(make: Callable[[nnx.Rngs], nnx.Module], layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """Build ``layers`` modules as one whose parameters have a leading axis L."""
    return nnx.vmap(make, in_axes=0)(rngs.split(layers))


def layer_count(stack: nnx.Module) -> int:
    """Return the length L of a stack made by :func:`stack_of`."""
    return jax.tree.leaves(nnx.state(stack))[0].shape[0]


def unstack(stack: nnx.Module, layout: WeightLayout) -> list[Any]:
    """Return the layers of a stack as modules of their own: slices of its parameters, put together."""
    graph, stacked = nnx.split(stack)
    slices = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(layer_count(stack))]
    return [nnx.merge(graph, gather_layer(layer, layout)) for layer in slices]


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
        x = apply(nnx.merge(graph, gather_layer(parameters, options.layout)), x, layer_key)
        return x, x if collect_layers else None

    if options.gradient_checkpointing is not None:
        body = jax.checkpoint(body, policy=CHECKPOINT_POLICIES[options.gradient_checkpointing])
    elif options.layout.gather_axis is not None:  # or all layers would be whole at once after all
        without = jax.checkpoint_policies.save_anything_except_these_names(STORED_PIECE)
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
