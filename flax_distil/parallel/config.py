"""Configuration of devices and processes, which every job that computes has."""

import dataclasses

from flax_distil.core.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")
"""Names of the axes of a mesh."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Number of devices on each axis of a mesh; one of them may be -1, for all devices that the others leave.

    Attributes:
        data: Number of replicas of the model.
        fsdp: Number of devices that each store a piece of every weight; they also divide the batch.
        tensor: Number of devices that compute the heads and features of one layer together.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = [getattr(self, axis) for axis in MESH_AXES]
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise InputError(
                f"mesh {self} cannot be: expected positive sizes, and -1 (the rest) at most once"
            )

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in MESH_AXES)

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Parse a text such as ``data=2,fsdp=4``; absent axes have their defaults.

        Raises:
            InputError: If an axis is unknown or a size is no whole number.
        """
        sizes: dict[str, int] = {}
        for part in filter(None, text.replace(" ", "").split(",")):
            axis, _, size = part.partition("=")
            if axis not in MESH_AXES or axis in sizes or not size.lstrip("-").isdigit():
                raise InputError(
                    f"mesh {text!r} is not understood at {part!r}: expected data=…,fsdp=…,tensor=…"
                )
            sizes[axis] = int(size)
        if "data" not in sizes and -1 in sizes.values():
            sizes["data"] = 1
        return cls(**sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """How the processes of a run find each other.

    Attributes:
        coordinator_address: Host and port where process 0 listens, such as 10.0.0.1:1234; without it, and
            without JAX_COORDINATOR_ADDRESS, the processes of a TPU pod, of Slurm, Open MPI or Kubernetes find
            each other by themselves.
        num_processes: Number of all processes (or JAX_NUM_PROCESSES); with 1, no others are looked for.
        process_id: Number of this process, counted from 0 (or JAX_PROCESS_ID).
        initialization_timeout_seconds: How long to wait until all processes have joined.
        heartbeat_timeout_seconds: How long a process may give no sign of life before the others end with
            status 75 and name it.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    initialization_timeout_seconds: int = 300
    heartbeat_timeout_seconds: int = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig(ProcessConfig):
    """Devices and processes.

    Attributes:
        parallelism: jit (a mesh of devices and named shardings) or pmap (every device holds a copy of the
            whole model).
        mesh: Number of devices per axis, such as data=2,fsdp=2,tensor=2; -1 stands for all remaining devices.
            The batch is divided over data and fsdp, stored weights over fsdp, heads, features and vocabulary
            over tensor.
        shard_vocabulary: Divide the token embedding over tensor too; set it to false where tensor does not
            divide the vocabulary.
    """

    parallelism: str = "jit"
    mesh: str = "data=-1"
    shard_vocabulary: bool = True

    def __post_init__(self) -> None:
        _ = self.mesh_shape  # checks it

    @property
    def mesh_shape(self) -> MeshShape:
        """The axis sizes that ``mesh`` describes."""
        return MeshShape.parse(self.mesh)
