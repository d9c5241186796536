"""Describe the devices of TPU slices, for which programs can be compiled.

The devices come from the TPU compiler (package ``libtpu``); no TPU is needed.
"""

import contextlib
import dataclasses
import importlib.util
import os

import jax

from flax_distil.core.errors import InputError
from flax_distil.planning.chips import CHIPS, TOPOLOGIES, Chip, check_topology
from flax_distil.planning.kernel_schedules import schedule_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A TPU slice and its devices, for which programs can be compiled but not run.

    Attributes:
        name: Product name of the slice.
        chip: Performance figures of one of its chips.
        devices: Devices, one per chip.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...] = dataclasses.field(repr=False)


def open_topology(name: str) -> Topology:
    """Load the TPU compiler, and return a slice as the compiler describes it.

    JAX then uses no attached accelerator, unless ``JAX_PLATFORMS`` names one.

    Raises:
        InputError: If the slice is unknown or the compiler is not installed.
    """
    known = check_topology(name)
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise InputError(
            "planning compiles for TPUs with the package libtpu, which is not installed: "
            'pip install "flax-distil[tpu-plan]" (on Linux)'
        )
    _prepare_environment()
    from jax.experimental import topologies

    kind, shape = TOPOLOGIES[known]
    chip = CHIPS[kind]
    described = topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **chip.compiler_options)
    return Topology(name=known, chip=chip, devices=tuple(described.devices))


def _prepare_environment() -> None:
    """Set the variables that ``libtpu`` would otherwise ask a TPU machine for, and turn its logs off.

    The compiler also writes the schedules of kernels from now on, if this process has not loaded it before.
    """
    schedule_folder()
    settings = {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v4-8",  # any will do: the slice is named at each compilation
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_LOG_DIR": "disabled",
    }
    for key, value in settings.items():
        os.environ.setdefault(key, value)
    if "JAX_PLATFORMS" not in os.environ and jax.config.jax_platforms is None:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # JAX has chosen already
            jax.config.update("jax_platforms", "cpu")
