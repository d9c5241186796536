"""Linear projections, among them those into heads and back, with kernels in one of two axis orders.

In training the input axes of a kernel come first: ``x @ W``. Decoding multiplies only a few rows by the
    kernel in every step, and the CPU compiler of XLA rearranges the right factor of a product each time,
    which takes more than twice as long as reading it (8 rows of base). So for decoding the output axes come
    first, and the kernel is the left factor.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flax_distil.core.arrays import Array, Float
from flax_distil.model.collectives import reduce_from_tp
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.int8.products import int8_product

KERNEL_AXES: dict[str, tuple[str, str]] = {
    # kernel                 in training, for decoding
    "self_attention/query": ("dnh", "nhd"),
    "self_attention/key": ("dnh", "nhd"),
    "self_attention/value": ("dnh", "nhd"),
    "self_attention/out": ("nhd", "dnh"),
    "cross_attention/query": ("dnh", "nhd"),
    "cross_attention/key": ("dnh", "ndh"),  # takes queries back to the states: DecoderLayer.cross_attend
    "cross_attention/value": ("dnh", "nhd"),
    "cross_attention/out": ("nhd", "dnh"),
    "fc1": ("df", "fd"),
    "fc2": ("fd", "df"),
}
"""Axes of the kernels of a layer: d model features, n heads, h head features, f features between fc1 and
fc2."""

OUTPUT_AXES = {name: axes[1:] if axes[0] == "d" else axes[-1] for name, (axes, _) in KERNEL_AXES.items()}
"""Axes of the outputs of a kernel: those of its bias, and of its scales where it is in int8."""

_FEW_ROWS = 32
"""Up to this many rows, the token embedding is the left factor; with 40 rows both orders take the same
time."""

_initializer = nnx.initializers.normal(0.02)


class Projection(nnx.Module):
    """A linear projection: a kernel in the axis order of training or of decoding, and possibly a bias.

    Attributes:
        name: Name in :data:`KERNEL_AXES`.
        axes: Letters of the kernel's axes.
        outputs: Letters of the axes of a bias.
        decode_layout: Whether the axes are in the order for decoding.
        dtype: Element type of the results.
        kernel_scale: Scales of an int8 kernel, one per output; None where the kernel is in floating point.
    """

    def __init__(
        self,
        name: str,
        sizes: dict[str, int],
        *,
        use_bias: bool = True,
        decode_layout: bool,
        options: ComputeOptions,
        rngs: nnx.Rngs,
    ):
        self.name, self.axes, self.outputs = name, KERNEL_AXES[name][decode_layout], OUTPUT_AXES[name]
        self.decode_layout, self.dtype = decode_layout, options.dtype
        shape, outputs = (tuple(sizes[axis] for axis in axes) for axes in (self.axes, self.outputs))
        self.kernel = nnx.Param(_initializer(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(outputs)) if use_bias else None
        self.kernel_scale = nnx.Param(jnp.ones(outputs)) if options.int8 else None

    def _multiply(self, x: Array, axes: str, out: str) -> Array:
        """Return the product of ``x`` (with axes ``axes``) and the kernel, with axes ``out``."""
        if self.kernel_scale is not None:
            return int8_product(
                x,
                self.kernel[...],
                self.kernel_scale[...],
                axes=(axes, self.axes, self.outputs),
                out=out,
                dtype=self.dtype,
                of_gelu=self.name == "fc2",
            )

        def contract(x: Array, kernel: Array) -> Array:
            return jnp.einsum(f"{axes},{self.axes}->{out}", x, kernel)

        def from_the_left(x: Array, kernel: Array) -> Array:
            kept = "".join(axis for axis in f"{self.axes}bt" if axis in out)
            return jnp.einsum(f"{kept}->{out}", jnp.einsum(f"{self.axes},{axes}->{kept}", kernel, x))

        kernel = self.kernel[...].astype(self.dtype)
        if not self.decode_layout:
            return contract(x, kernel)
        return jax.lax.platform_dependent(x, kernel, cpu=from_the_left, default=contract)


def project_onto_tokens(
    hidden_BTD: Float[Array, "B T D"], embedding_VD: Float[Array, "V D"]
) -> Float[Array, "B T V"]:
    """Return the products of hidden states and token embeddings, in float32.

    On a CPU with few rows, the embedding is the left factor. Without the barrier the compiler would swap the
    factors, which takes twice the time.
    """

    def contract(hidden_BTD: Array, embedding_VD: Array) -> Array:
        return jnp.einsum("btd,vd->btv", hidden_BTD, embedding_VD, preferred_element_type=jnp.float32)

    def from_the_left(hidden_BTD: Array, embedding_VD: Array) -> Array:
        y_VBT = jnp.einsum("vd,btd->vbt", embedding_VD, hidden_BTD, preferred_element_type=jnp.float32)
        return jnp.einsum("vbt->btv", jax.lax.optimization_barrier(y_VBT))

    is_few = math.prod(hidden_BTD.shape[:2]) <= _FEW_ROWS
    return jax.lax.platform_dependent(
        hidden_BTD, embedding_VD, cpu=from_the_left if is_few else contract, default=contract
    )


class Linear(Projection):
    """An affine map, ``fc1`` or ``fc2``; products can be summed over devices before the bias is added."""

    def __init__(self, name: str, width: int, features: int, **common: Any):
        super().__init__(name, {"d": width, "f": features}, **common)
        self._in = KERNEL_AXES[name][False][0]

    def product(self, x: Float[Array, "B T _"]) -> Float[Array, "B T _"]:
        """Return the product with the kernel, without the bias."""
        return self._multiply(x, f"bt{self._in}", f"bt{self.outputs}")

    def add_bias(self, y: Float[Array, "B T _"]) -> Float[Array, "B T _"]:
        """Add the bias to a product."""
        return y + self.bias[...].astype(self.dtype)  # type: ignore[index]


class QKVProjection(Projection):
    """Project [B, T, D] into heads [B, N, T, H].

    This is one contraction, whose result a TPU writes in the layout that attention reads. On a CPU it is a
    plain matrix product, because the CPU compiler of XLA would multiply the transposes in the contraction,
    which takes twice the time.
    """

    def __init__(self, name: str, width: int, heads: int, **common: Any):
        super().__init__(name, {"d": width, "n": heads, "h": width // heads}, **common)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B N T H"]:
        """Return the projection in the compute dtype."""
        if self.decode_layout or self.kernel_scale is not None:
            return self._with_bias(self._multiply(x_BTD, "btd", "bnth"))

        def contract(x_BTD: Array, kernel_DNH: Array) -> Array:
            return jnp.einsum("btd,dnh->bnth", x_BTD, kernel_DNH)

        def multiply(x_BTD: Array, kernel_DNH: Array) -> Array:
            y_BTE = x_BTD @ kernel_DNH.reshape(kernel_DNH.shape[0], -1)
            return y_BTE.reshape(*x_BTD.shape[:2], *kernel_DNH.shape[1:]).swapaxes(1, 2)

        kernel_DNH = self.kernel[...].astype(self.dtype)
        return self._with_bias(jax.lax.platform_dependent(x_BTD, kernel_DNH, cpu=multiply, default=contract))

    def apply_transposed(self, y_BNTH: Float[Array, "B N T H"]) -> Float[Array, "B N T D"]:
        """Return vectors whose products with inputs equal those of ``y_BNTH`` with the projected inputs."""
        return self._multiply(y_BNTH, "bnth", "bntd")

    def apply_per_head(self, x_BNTD: Float[Array, "B N T D"]) -> Float[Array, "B N T H"]:
        """Project inputs that differ between heads."""
        return self._with_bias(self._multiply(x_BNTD, "bntd", "bnth"))

    def by_head(self) -> Float[Array, "N D H"]:
        """Return the kernel of each head."""
        kernel_NDH = jnp.einsum(f"{self.axes}->ndh", self.kernel[...])
        return kernel_NDH if self.kernel_scale is None else kernel_NDH * self.kernel_scale[...][:, None]

    def _with_bias(self, y_BNTH: Array) -> Array:
        return y_BNTH if self.bias is None else y_BNTH + self.bias[...].astype(self.dtype)[:, None]


class OutProjection(Projection):
    """Project heads [B, N, T, H] back to [B, T, D]; computed like :class:`QKVProjection`.

    A device may hold only some of the heads; the results are then summed over the devices of ``axis``.
    """

    def __init__(self, name: str, width: int, heads: int, *, options: ComputeOptions, **common: Any):
        sizes = {"d": width, "n": heads, "h": width // heads}
        super().__init__(name, sizes, options=options, **common)
        self.axis = options.sharding.tensor_axis

    def __call__(self, x_BNTH: Float[Array, "B N T H"]) -> Float[Array, "B T D"]:
        """Return the projection in the compute dtype."""
        y_BTD = self._product(x_BNTH)
        return reduce_from_tp(y_BTD, self.axis) + self.bias[...].astype(self.dtype)  # type: ignore[index]

    def _product(self, x_BNTH: Float[Array, "B N T H"]) -> Float[Array, "B T D"]:
        if self.kernel_scale is not None:
            return self._multiply(x_BNTH, "bnth", "btd")

        def contract(x_BNTH: Array, kernel: Array) -> Array:
            return jnp.einsum(f"bnth,{self.axes}->btd", x_BNTH, kernel)

        def multiply(x_BNTH: Array, kernel: Array) -> Array:
            x_BTE = x_BNTH.swapaxes(1, 2).reshape(x_BNTH.shape[0], x_BNTH.shape[2], -1)
            if self.decode_layout:
                return jnp.einsum("de,bte->dbt", kernel.reshape(kernel.shape[0], -1), x_BTE).transpose(
                    1, 2, 0
                )
            return x_BTE @ kernel.reshape(-1, kernel.shape[2])

        kernel = self.kernel[...].astype(self.dtype)
        return jax.lax.platform_dependent(x_BNTH, kernel, cpu=multiply, default=contract)


class AttentionProjections(nnx.Module):
    """Query, key (without bias), value and output projections of one attention block.

    ``name`` is ``self_attention`` or ``cross_attention``.
    """

    def __init__(
        self,
        name: str,
        width: int,
        heads: int,
        *,
        decode_layout: bool,
        options: ComputeOptions,
        rngs: nnx.Rngs,
    ):
        common: dict[str, Any] = {"decode_layout": decode_layout, "options": options, "rngs": rngs}
        self.query = QKVProjection(f"{name}/query", width, heads, **common)
        self.key = QKVProjection(f"{name}/key", width, heads, use_bias=False, **common)
        self.value = QKVProjection(f"{name}/value", width, heads, **common)
        self.out = OutProjection(f"{name}/out", width, heads, **common)


def to_decode_layout(path: str, kernel: Any) -> Any:
    """Return a kernel of one layer in the axis order for decoding; for a numpy array, a view.

    Args:
        path: Path below the layer, such as ``fc1/kernel``; leaves that are not kernels stay as they are.
        kernel: Kernel in the axis order of training.
    """
    name, _, leaf = path.rpartition("/")
    if leaf != "kernel":
        return kernel
    training, decoding = KERNEL_AXES[name]
    return kernel.transpose([training.index(axis) for axis in decoding])
