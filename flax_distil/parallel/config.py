"""Settings of every job that computes: how its work is laid over devices and processes."""

import dataclasses

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel.compilation_cache import use_compilation_cache
from flax_distil.parallel.make_partitioner import make_partitioner
from flax_distil.parallel.mesh import MeshShape
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.processes import ProcessConfig, initialize_distributed


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig(ProcessConfig):
    """How work is laid over devices and processes.

    Attributes:
        parallelism: jit (meshes, named shardings) or pmap (every device a whole copy of the model).
        mesh: Devices per axis, as data=2,fsdp=2,tensor=2; -1 is the rest. The batch is divided over
            data and fsdp, stored weights over fsdp, heads, features and vocabulary over tensor.
        shard_vocabulary: Divide the token embedding over tensor too; false where tensor does not divide
            the vocabulary.
    """

    parallelism: str = "jit"
    mesh: str = "data=-1"
    shard_vocabulary: bool = True

    @property
    def mesh_shape(self) -> MeshShape:
        """The sizes of ``mesh``."""
        return MeshShape.parse(self.mesh)

    def make_partitioner(self) -> Partitioner:
        """Join the other processes and return the partitioner over the devices of all.

        Raises:
            InputError: if a process is missing, the mesh does not fit the devices, or ``parallelism`` is
                unknown.
        """
        self._join()
        return make_partitioner(self.parallelism, self.mesh_shape, shard_vocabulary=self.shard_vocabulary)

    def make_local_partitioner(self) -> Partitioner:
        """Join the other processes and return a partitioner over the devices of this one alone.

        For work that processes share without waiting for each other: each holds the whole model, and
        a data axis of the mesh counts the devices of all.

        Raises:
            InputError: as :meth:`make_partitioner`, or if the data axis cannot be divided over the processes.
        """
        self._join()
        shape, processes = self.mesh_shape, jax.process_count()
        if shape.data != -1:
            if shape.data % processes:
                raise InputError(
                    f"mesh {shape} cannot be divided over {processes} processes that compute apart from each "
                    "other: give data as a multiple of them, or as -1"
                )
            shape = dataclasses.replace(shape, data=shape.data // processes)
        return make_partitioner(
            self.parallelism, shape, shard_vocabulary=self.shard_vocabulary, devices=jax.local_devices()
        )

    def _join(self) -> None:
        use_compilation_cache()
        if not jax.distributed.is_initialized():  # an embedding program may have joined already
            initialize_distributed(self)
