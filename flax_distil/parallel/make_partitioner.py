"""The partitioner that a user asks for by name."""

import functools
from collections.abc import Sequence

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel.jit_partitioner import JitPartitioner
from flax_distil.parallel.mesh import FSDP_AXIS, TENSOR_AXIS, MeshShape
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.pmap_partitioner import PmapPartitioner


def make_partitioner(
    parallelism: str,
    mesh: MeshShape,
    *,
    shard_vocabulary: bool = True,
    devices: Sequence[jax.Device] | None = None,
) -> Partitioner:
    """Return the partitioner that the flags ask for, over these devices, by default those of all processes.

    Raises:
        InputError: if ``parallelism`` is unknown, the mesh does not multiply to the devices, or ``pmap``
            is asked to divide weights.
    """
    if parallelism == "jit":
        return JitPartitioner(mesh.build(devices), shard_vocabulary=shard_vocabulary)
    if parallelism != "pmap":
        raise InputError(f"parallelism {parallelism!r} is unknown: expected jit or pmap")
    built = mesh.build(devices)
    if built.shape[FSDP_AXIS] * built.shape[TENSOR_AXIS] > 1:
        raise InputError(
            f"parallelism pmap replicates the weights, but mesh is {mesh}: choose jit, or data alone"
        )
    return PmapPartitioner(built)


@functools.cache
def single_device() -> JitPartitioner:
    """Return the partitioner of this process's first device; all callers share its compiled functions."""
    return JitPartitioner(MeshShape().build(jax.local_devices()[:1]))
