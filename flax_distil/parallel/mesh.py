"""The mesh ``(data, fsdp, tensor)`` over the devices of all processes."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from flax_distil.core.errors import InputError

DATA_AXIS, FSDP_AXIS, TENSOR_AXIS = "data", "fsdp", "tensor"
AXES = (DATA_AXIS, FSDP_AXIS, TENSOR_AXIS)
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)
"""Axes that divide the batch; the devices of the tensor axis work on the same rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """How many devices each axis has; -1, for one of them, is all that the others leave.

    Attributes:
        data: replicas of the model.
        fsdp: devices that store a piece of every weight each, and divide the batch too.
        tensor: devices that compute the heads and features of one layer together.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = [getattr(self, axis) for axis in AXES]
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise InputError(
                f"mesh {self} cannot be: expected positive sizes, and -1 (the rest) at most once"
            )

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in AXES)

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Read ``data=2,fsdp=4``; axes left out have their defaults.

        Raises:
            InputError: if an axis is unknown or a size is no whole number.
        """
        sizes: dict[str, int] = {}
        for part in filter(None, text.replace(" ", "").split(",")):
            axis, _, size = part.partition("=")
            if axis not in AXES or axis in sizes or not size.lstrip("-").isdigit():
                raise InputError(
                    f"mesh {text!r} is not understood at {part!r}: expected data=…,fsdp=…,tensor=…"
                )
            sizes[axis] = int(size)
        if DATA_AXIS not in sizes and -1 in sizes.values():
            sizes[DATA_AXIS] = 1
        return cls(**sizes)

    def build(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """Lay the devices (by default those of all processes) out.

        Raises:
            InputError: if the axes do not multiply to the number of devices.
        """
        found = list(jax.devices() if devices is None else devices)
        sizes = [getattr(self, axis) for axis in AXES]
        if -1 in sizes:
            sizes[sizes.index(-1)] = len(found) // -math.prod(sizes)
        if math.prod(sizes) != len(found):
            raise InputError(
                f"mesh {self} does not multiply to the {len(found)} devices there are: change a size, or "
                "give one of them as -1"
            )
        return Mesh(np.asarray(found).reshape(sizes), AXES)
