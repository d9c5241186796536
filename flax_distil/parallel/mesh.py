"""The mesh ``(data, fsdp, tensor)`` over the devices of all processes."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from flax_distil.core.errors import InputError
from flax_distil.parallel.config import MESH_AXES, MeshShape

AXES = DATA_AXIS, FSDP_AXIS, TENSOR_AXIS = MESH_AXES
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)
"""Axes that divide the batch; the devices along the tensor axis work on the same rows."""


def build_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange devices (by default those of all processes) in a mesh.

    Raises:
        InputError: If the product of the axes is not the number of devices.
    """
    found = list(jax.devices() if devices is None else devices)
    sizes = [getattr(shape, axis) for axis in AXES]
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(found) // -math.prod(sizes)
    if math.prod(sizes) != len(found):
        raise InputError(
            f"mesh {shape} does not multiply to the {len(found)} devices there are: change a size, or "
            "give one of them as -1"
        )
    return Mesh(np.asarray(found).reshape(sizes), AXES)
