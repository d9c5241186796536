"""Keep JAX from looking for a TPU on machines without one.

Where the package ``libtpu`` is installed to plan for TPUs, JAX would load it to look for a TPU, and it writes
errors to the terminal if it finds none.
"""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

GOOGLE = "0x1ae0"
"""PCI vendor id of TPUs, by which JAX finds them too (``jax._src.hardware_utils``)."""

ASKED_FOR = (
    "JAX_PLATFORMS",
    "JAX_FORCE_TPU_INIT",
    "TPU_NAME",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
)
"""Variables that choose the platforms of JAX, or say that there is a TPU."""


def pass_over_absent_tpu(pci_devices: Path = Path("/sys/bus/pci/devices")) -> None:
    """Before JAX is imported, tell it not to look for a TPU if there is none and none was asked for.

    Args:
        pci_devices: Folder that lists the devices of the PCI bus.
    """
    if "jax" in sys.modules or any(name in os.environ for name in ASKED_FOR):
        return
    if importlib.util.find_spec("libtpu") is None or _has_tpu(pci_devices):
        return
    others = [point.name for point in importlib.metadata.entry_points(group="jax_plugins")]
    if any("cuda" not in name for name in others):  # a plugin for another kind of device
        return
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if others else "cpu"


def _has_tpu(pci_devices: Path) -> bool:
    vendors = pci_devices.glob("*/vendor")
    return any(vendor.read_text(encoding="ascii", errors="replace").strip() == GOOGLE for vendor in vendors)
