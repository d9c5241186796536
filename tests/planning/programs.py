"""Small programs, compiled for a TPU or for this machine."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_distil.planning.topologies import open_topology

PLACES = ("cpu", "v4-8", "v5e-8", "v6e-8")


@functools.cache
def mesh_of(place: str) -> Mesh:
    devices = jax.local_devices()[:1] if place == "cpu" else open_topology(place).devices
    return Mesh(np.asarray(devices), ("data",))


def compiled_text(function, place: str, *shapes: tuple[int, ...], dtype=jnp.bfloat16) -> str:
    """Compile a function of whole arrays, run alike on all devices of a place."""
    mesh = mesh_of(place)
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )
    whole = NamedSharding(mesh, PartitionSpec())
    leaves = [jax.ShapeDtypeStruct(shape, dtype, sharding=whole) for shape in shapes]
    return jax.jit(mapped).lower(*leaves).compile().as_text()
