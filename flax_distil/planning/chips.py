"""TPU chips with their performance figures, and the product names of TPU slices."""

import dataclasses
from collections.abc import Mapping

from flax_distil.core.errors import InputError
from flax_distil.parallel.peak_flops import TPU_PEAK_FLOPS, TPU_PEAK_INT8

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of TPU; all figures are of one device as JAX counts them, which is mostly a whole chip.

    Attributes:
        hbm_bytes: HBM that the compiler gives to one program ("available HBM" in its out-of-memory message,
            libtpu 0.0.52), which is less than the chip has.
        peak_flops: bfloat16 FLOP per second.
        hbm_bytes_per_second: Bandwidth of the HBM.
        interconnect_bytes_per_second: Bandwidth of all links to other chips together, in one direction.
        flops_per_cycle: 2 · matrix units · rows · columns; ``peak_flops`` divided by it is the clock rate.
        peak_int8: int8 operations per second; None for a chip that does not multiply in int8.
        cores_in_name: How much one chip adds to the number in the product's name, which counts TensorCores or
            chips.
        devices: Number of devices of one chip.
        compiler_options: Further arguments of ``get_topology_desc``.
    """

    hbm_bytes: float
    peak_flops: float
    hbm_bytes_per_second: float
    interconnect_bytes_per_second: float
    flops_per_cycle: int
    cores_in_name: int
    devices: int = 1
    compiler_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    peak_int8: float | None = None

    @property
    def cycles_per_second(self) -> float:
        """The clock rate, which turns the compiler's cycles into time: 1.05, 1.5, 1.75, 1.75 and 2.2 GHz."""
        return self.peak_flops / self.flops_per_cycle


# Bandwidths and matrix units: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. These pages give the
# interconnect in Gbit/s (v5e 1600, v5p 4800) or for both directions (v6e 800, tpu7x 1200 GB/s). For v4: arXiv
# 2304.01433, 6 links of 50 GB/s. The HBM was measured. A v6e does twice as many products of 256×256 per cycle
# as its two units suggest: a large product compiles to 369 thousand FLOP per estimated cycle. Each of the two
# TensorCores of a tpu7x is a device, with half of the chip's memory and bandwidths; a large product compiles
# to 445 thousand FLOP per estimated cycle.
CHIPS = {
    "v4": Chip(
        hbm_bytes=30.75 * GIB, peak_flops=TPU_PEAK_FLOPS["v4"], hbm_bytes_per_second=1228e9,
        interconnect_bytes_per_second=300e9, flops_per_cycle=2 * 8 * 128 * 128, cores_in_name=2,
        compiler_options={"chip_config_name": "megacore"},  # both TensorCores as one device
    ),
    "v5e": Chip(
        hbm_bytes=15.75 * GIB, peak_flops=TPU_PEAK_FLOPS["v5e"], hbm_bytes_per_second=819e9,
        interconnect_bytes_per_second=200e9, flops_per_cycle=2 * 4 * 128 * 128, cores_in_name=1,
        peak_int8=TPU_PEAK_INT8["v5e"],
    ),
    "v5p": Chip(
        hbm_bytes=95.73 * GIB, peak_flops=TPU_PEAK_FLOPS["v5p"], hbm_bytes_per_second=2765e9,
        interconnect_bytes_per_second=600e9, flops_per_cycle=2 * 8 * 128 * 128, cores_in_name=2,
        peak_int8=TPU_PEAK_INT8["v5p"],
    ),
    "v6e": Chip(
        hbm_bytes=31.24 * GIB, peak_flops=TPU_PEAK_FLOPS["v6e"], hbm_bytes_per_second=1638e9,
        interconnect_bytes_per_second=400e9, flops_per_cycle=2 * 4 * 256 * 256, cores_in_name=1,
        peak_int8=TPU_PEAK_INT8["v6e"],
    ),
    "tpu7x": Chip(
        hbm_bytes=94.74 * GIB, peak_flops=TPU_PEAK_FLOPS["tpu7x"] / 2, hbm_bytes_per_second=7380e9 / 2,
        interconnect_bytes_per_second=600e9 / 2, flops_per_cycle=2 * 4 * 256 * 256, cores_in_name=2,
        devices=2,
    ),
}  # fmt: skip


_SYNONYMS = {"v5litepod": "v5e"}

_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_PLANES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SHAPES = {"v4": _CUBES, "v5p": _CUBES, "v5e": _PLANES, "v6e": _PLANES, "tpu7x": _CUBES}


def _product(shape: str) -> int:
    result = 1
    for side in shape.split("x"):
        result *= int(side)
    return result


TOPOLOGIES = {
    f"{kind}-{_product(shape) * CHIPS[kind].cores_in_name}": (kind, shape)
    for kind, shapes in _SHAPES.items()
    for shape in shapes
}
"""Slices that can be planned for: product name to kind of chip and shape, as ``"v4-8": ("v4", "2x2x1")``."""


def check_topology(name: str) -> str:
    """Return the name of a slice as it stands in ``TOPOLOGIES``.

    Raises:
        InputError: If the slice is unknown.
    """
    kind, _, count = name.partition("-")
    known = f"{_SYNONYMS.get(kind, kind)}-{count}"
    if known not in TOPOLOGIES:
        raise InputError(f"topology {name!r} is unknown: expected one of {', '.join(TOPOLOGIES)}")
    return known
