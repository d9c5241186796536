"""Distributions of the trained weights, counted on the devices: only the counts are sent to the host."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_distil.core.arrays import Array, Params
from flax_distil.core.tree import flatten
from flax_distil.distillation.monitoring.reporters.reporter import Histogram
from flax_distil.parallel.partitioner import Partitioner

BINS = 32

_LAYERS = "layers"
"""Part of the path of weights whose first axis counts layers."""

_VECTORS = ("bias", "scale")


def weight_histograms(params: Params, partitioner: Partitioner) -> dict[str, Histogram]:
    """Return a histogram of each trained matrix, of every layer; called on all processes.

    Args:
        params: Trainable leaves of the student, on the devices. Vectors are left out.
        partitioner: The devices.
    """
    shown = {
        path: leaf
        for path, leaf in flatten(partitioner.unreplicate(params)).items()
        if path.rsplit("/", 1)[-1] not in _VECTORS
    }
    counted = jax.device_get(_compiled(partitioner.mesh)(shown))
    found = {}
    for path, (low, high, below, square) in counted.items():
        for layer in range(len(low)):
            name = path.replace(_LAYERS, f"layer_{layer:02d}") if _is_stacked(path) else path
            counts = np.diff(below[layer].astype(np.float64), prepend=0.0)
            edges = np.linspace(float(low[layer]), float(high[layer]), BINS + 1)
            if np.isfinite(edges).all():
                found[f"weights/{name}"] = Histogram(
                    edges=edges, counts=counts, mean_square=float(square[layer])
                )
    return found


def _is_stacked(path: str) -> bool:
    return _LAYERS in path.split("/")


@functools.lru_cache(maxsize=4)
def _compiled(mesh: Mesh) -> Any:
    return jax.jit(_count, out_shardings=NamedSharding(mesh, P()))


def _count(matrices: dict[str, Array]) -> dict[str, tuple[Array, Array, Array, Array]]:
    """Return the least and largest element, elements up to each upper edge, and the mean square, by layer."""
    return {
        path: jax.vmap(_count_one)(leaf if _is_stacked(path) else leaf[None])
        for path, leaf in matrices.items()
    }


def _count_one(weights: Array) -> tuple[Array, Array, Array, Array]:
    wide = weights.astype(jnp.float32)
    low, high = wide.min(), wide.max()
    edges = low + (high - low) * jnp.arange(1, BINS, dtype=jnp.float32) / BINS
    below = jax.lax.map(lambda edge: (wide <= edge).sum(dtype=jnp.int32), edges)
    return low, high, jnp.append(below, wide.size), jnp.square(wide).mean()
