"""The modules of a layer with int8 weights, run by the kernels for TPU."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float
from flax_distil.model.int8.kernels import (
    Int8Weights,
    NormWeights,
    finish_layer_on_tpu,
    fits_int8_kernels,
    project_on_tpu,
)


def uses_int8_kernels(layer: Any, x_BTD: Array, key: Array | None) -> bool:
    """Return whether the kernels can run a layer: it has int8 weights, holds all of them, drops nothing."""
    fc1 = layer.fc1
    is_whole = fc1.kernel_scale is not None and layer.axis is None and not fc1.decode_layout and key is None
    return is_whole and fits_int8_kernels(x_BTD, fc1.kernel.shape[-1])


def project_heads(
    projections: Sequence[Any],
    x_BTD: Float[Array, "B T D"],
    norm: Any = None,
    *,
    query_scale: float = 1.0,
    interpret: bool = False,
) -> list[Float[Array, "B N T H"]]:
    """Return several projections of the same activations, the first of them times ``query_scale``.

    ``interpret`` runs the kernel as plain JAX, without a TPU.
    """
    parts = [_flat(projection) for projection in projections]
    parts[0] = parts[0]._replace(scale=parts[0].scale * query_scale, bias=parts[0].bias * query_scale)
    made = project_on_tpu(x_BTD, None if norm is None else _norm(norm), parts, interpret=interpret)
    heads, features = projections[0].kernel.shape[-2:]
    rows, tokens = x_BTD.shape[:2]
    return [y_BET.reshape(rows, heads, features, tokens).swapaxes(2, 3) for y_BET in made]


def finish_layer(
    layer: Any,
    out: Any,
    mixed_BNTH: Float[Array, "B N T H"],
    x_BTD: Float[Array, "B T D"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T D"]:
    """Return the output of a layer from that of its last attention, whose output projection is ``out``."""
    rows, heads, tokens, features = mixed_BNTH.shape
    mixed_BET = mixed_BNTH.swapaxes(2, 3).reshape(rows, heads * features, tokens)
    fc1, fc2 = _flat(layer.fc1), _flat(layer.fc2)
    return finish_layer_on_tpu(
        mixed_BET, x_BTD, _flat(out), _norm(layer.final_norm), fc1, fc2, interpret=interpret
    )


def _flat(projection: Any) -> Int8Weights:
    """Return a projection with its kernel as a matrix [inputs, outputs]; inputs come first in training."""
    kernel, scale = projection.kernel[...], projection.kernel_scale[...].reshape(-1)
    bias = jnp.zeros_like(scale) if projection.bias is None else projection.bias[...].reshape(-1)
    return Int8Weights(kernel.reshape(-1, scale.shape[0]), scale, bias.astype(jnp.float32))


def _norm(norm: Any) -> NormWeights:
    return NormWeights(norm.scale[...], norm.bias[...])
