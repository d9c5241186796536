"""The partitioner that a user asks for by name."""

import functools
from collections.abc import Sequence

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel.jit_partitioner import JitRunner
from flax_distil.parallel.mesh import FSDP_AXIS, TENSOR_AXIS, MeshShape
from flax_distil.parallel.partitioner import Runner
from flax_distil.parallel.pmap_partitioner import PmapRunner


def make_runner(
    parallelism: str,
    mesh: MeshShape,
    *,
    shard_vocabulary: bool = True,
    devices: Sequence[jax.Device] | None = None,
) -> Runner:
    """Return the runner that the flags ask for, over these devices, by default those of all processes.

    Raises:
        InputError: if ``parallelism`` is unknown, the mesh does not multiply to the devices, or ``pmap``
            is asked to divide weights.
    """
    if parallelism == "jit":
        return JitRunner(mesh.build(devices), shard_vocabulary=shard_vocabulary)
    if parallelism != "pmap":
        raise InputError(f"parallelism {parallelism!r} is unknown: expected jit or pmap")
    built = mesh.build(devices)
    if built.shape[FSDP_AXIS] * built.shape[TENSOR_AXIS] > 1:
        raise InputError(
            f"parallelism pmap replicates the weights, but mesh is {mesh}: choose jit, or data alone"
        )
    return PmapRunner(built)


@functools.cache
def single_device() -> JitRunner:
    """Return the runner on the first device of this process: always the same, so its programs are shared."""
    return JitRunner(MeshShape().build(jax.local_devices()[:1]))
