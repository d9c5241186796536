"""Checksums of the leaves of a state, which do not depend on how the leaves are divided over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
"""Unsigned type of each element size in bytes."""


def describe_leaves(tree: Any) -> dict[str, str]:
    """Return descriptions such as ``{"params/kernel": "float32[3, 4]"}`` of the leaves of a state."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): _describe(leaf) for path, leaf in leaves}


def parse_leaf(description: str) -> jax.ShapeDtypeStruct:
    """Return the type and shape of a leaf on the first device of the host; the inverse of its description."""
    dtype, _, shape = description.rstrip("]").partition("[")
    sizes = tuple(int(size) for size in shape.split(",") if size)
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may name only the accelerator
        host = jax.local_devices()[0]
    return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=SingleDeviceSharding(host))


def leaf_checksums(tree: Any) -> dict[str, int]:
    """Return a checksum of the bits of each leaf, by its path; all processes must call this.

    The checksum is the sum over all elements of bits times a weight, modulo 2**32. A weight is an odd number
    that depends on the position of the element in the whole leaf. So the sum is the same for every division
    of a leaf over devices and processes, and a single flipped bit always changes it.

    Args:
        tree: Arrays on the devices of all processes, of 1, 2 or 4 bytes per element, or numbers.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = jax.device_get(_sums([leaf for _, leaf in leaves]))
    return {_name(path): int(number) for (path, _), number in zip(leaves, sums, strict=True)}


@jax.jit
def _sums(leaves: list[Any]) -> list[jax.Array]:
    return [_sum(jnp.asarray(leaf)) for leaf in leaves]


def _sum(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    position, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        position, stride = position + index * np.uint32(stride % 2**32), stride * leaf.shape[axis]
    mixed = (position + np.uint32(1)) * np.uint32(2654435761)  # so that neighbours differ in all bits
    return jnp.sum(bits * (mixed ^ (mixed >> 15) | np.uint32(1)), dtype=jnp.uint32)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _describe(leaf: Any) -> str:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    shape = leaf.shape if hasattr(leaf, "shape") else ()
    return f"{np.dtype(dtype).name}{list(shape)}"
