"""Make the partitioner that the configuration asks for."""

import dataclasses
import functools
from collections.abc import Sequence

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel.compilation_cache import use_compilation_cache
from flax_distil.parallel.config import MeshShape, ParallelConfig
from flax_distil.parallel.jit_partitioner import JitPartitioner
from flax_distil.parallel.mesh import FSDP_AXIS, TENSOR_AXIS, build_mesh
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.pmap_partitioner import PmapPartitioner
from flax_distil.parallel.processes import initialize_distributed


def make_partitioner(
    parallelism: str,
    mesh: MeshShape,
    *,
    shard_vocabulary: bool = True,
    devices: Sequence[jax.Device] | None = None,
) -> Partitioner:
    """Return the partitioner that the flags ask for, over the given devices; by default over all devices.

    Raises:
        InputError: If ``parallelism`` is unknown, the mesh does not multiply to the devices, or ``pmap``
            is asked to divide weights.
    """
    if parallelism == "jit":
        return JitPartitioner(build_mesh(mesh, devices), shard_vocabulary=shard_vocabulary)
    if parallelism != "pmap":
        raise InputError(f"parallelism {parallelism!r} is unknown: expected jit or pmap")
    built = build_mesh(mesh, devices)
    if built.shape[FSDP_AXIS] * built.shape[TENSOR_AXIS] > 1:
        raise InputError(
            f"parallelism pmap replicates the weights, but mesh is {mesh}: choose jit, or data alone"
        )
    return PmapPartitioner(built)


def join_devices(config: ParallelConfig) -> Partitioner:
    """Join the other processes, and return the partitioner over the devices of all processes.

    Raises:
        InputError: If a process is missing, the mesh does not fit the devices, or ``parallelism`` is
            unknown.
    """
    _join(config)
    return make_partitioner(config.parallelism, config.mesh_shape, shard_vocabulary=config.shard_vocabulary)


def join_local_devices(config: ParallelConfig) -> Partitioner:
    """Join the other processes, and return a partitioner over the devices of this process only.

    It is for work that processes share without waiting for each other: each process holds the whole model,
        and the data axis of the mesh counts the devices of all processes.

    Raises:
        InputError: If :func:`join_devices` raises it, or if the data axis cannot be divided over the
            processes.
    """
    _join(config)
    shape, processes = config.mesh_shape, jax.process_count()
    if shape.data != -1:
        if shape.data % processes:
            raise InputError(
                f"mesh {shape} cannot be divided over {processes} processes that compute apart from each "
                "other: give data as a multiple of them, or as -1"
            )
        shape = dataclasses.replace(shape, data=shape.data // processes)
    return make_partitioner(
        config.parallelism, shape, shard_vocabulary=config.shard_vocabulary, devices=jax.local_devices()
    )


def _join(config: ParallelConfig) -> None:
    use_compilation_cache()
    if not jax.distributed.is_initialized():  # a program that uses this package may have joined already
        initialize_distributed(config)


@functools.cache
def single_device() -> JitPartitioner:
    """Return the partitioner of this process's first device; all callers share its compiled functions."""
    return JitPartitioner(build_mesh(MeshShape(), jax.local_devices()[:1]))
