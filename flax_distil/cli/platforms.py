"""Which kinds of devices JAX looks for: none of a TPU where there is none.

Where the package ``libtpu`` is installed, to plan for TPUs, JAX would load it to look for one, and it
writes errors to the terminal when it finds none.
"""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

GOOGLE = "0x1ae0"
"""Vendor of TPUs on the PCI bus, where JAX looks for them too (``jax._src.hardware_utils``)."""

ASKED_FOR = (
    "JAX_PLATFORMS",
    "JAX_FORCE_TPU_INIT",
    "TPU_NAME",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
)
"""With one of these variables it was decided already what to look for, or a TPU is announced."""


def pass_over_absent_tpu(pci_devices: Path = Path("/sys/bus/pci/devices")) -> None:
    """Have JAX look for no TPU if this machine has none and none was asked for; before JAX is imported.

    Args:
        pci_devices: Folder of the devices of the PCI bus.
    """
    if "jax" in sys.modules or any(name in os.environ for name in ASKED_FOR):
        return
    if importlib.util.find_spec("libtpu") is None or _has_tpu(pci_devices):
        return
    others = [point.name for point in importlib.metadata.entry_points(group="jax_plugins")]
    if any("cuda" not in name for name in others):  # a device whose platform has a name of its own
        return
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if others else "cpu"


def _has_tpu(pci_devices: Path) -> bool:
    vendors = pci_devices.glob("*/vendor")
    return any(vendor.read_text(encoding="ascii", errors="replace").strip() == GOOGLE for vendor in vendors)
