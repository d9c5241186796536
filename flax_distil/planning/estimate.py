"""Estimate how fast a program runs on a chip, with lower bounds of its time."""

import dataclasses
import math

from flax_distil.planning.chips import Chip
from flax_distil.planning.hlo import ProgramCosts

KERNEL_EFFICIENCY = 1 / 3
"""Share of the peak at which Pallas kernels of unknown schedule are assumed to run; it was not measured.
Attention with heads of 64 features fills at most half of a matrix unit that is 128 wide, and computes a
softmax besides."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
    """Seconds that one execution of a program takes, on all chips at the same time.

    Attributes:
        flop_bound: Time of its FLOPs at the peak rate; no program is faster.
        bandwidth_bound: Time of the HBM traffic that cannot be avoided, at the full bandwidth.
        cycles: The compiler's cycles divided by the clock rate; None where the program could not be read.
        kernels: Time of Pallas kernels, which the cycles leave out: by their schedules where these are known,
            otherwise ``assumed_kernels``.
        kernels_are_scheduled: Whether ``kernels`` comes from schedules.
        assumed_kernels: Time of the FLOPs of Pallas kernels at ``KERNEL_EFFICIENCY``.
        collectives: Time of the bytes of collectives, which the cycles leave out too, at the full bandwidth
            of the links and as if nothing overlapped.
    """

    flop_bound: float
    bandwidth_bound: float
    cycles: float | None
    kernels: float
    kernels_are_scheduled: bool
    assumed_kernels: float
    collectives: float

    @property
    def floor(self) -> float:
        """The higher of the two lower bounds."""
        return max(self.flop_bound, self.bandwidth_bound)

    @property
    def seconds(self) -> float | None:
        """The estimated time; None where only the floor is known."""
        if self.cycles is None:
            return None
        return max(self.floor, self.cycles + self.kernels + self.collectives)


def estimate_step(
    chip: Chip,
    costs: ProgramCosts | None,
    *,
    flops: float,
    least_bytes: float,
    chips: int,
    int8_flops: float = 0.0,
) -> StepEstimate:
    """Convert counts of operations and bytes into seconds.

    Args:
        chip: Kind of the chips.
        costs: Costs read from the program; None if it could not be read.
        flops: FLOPs per chip, counted analytically.
        least_bytes: HBM traffic per chip that cannot be avoided.
        chips: Number of chips that take part in collectives.
        int8_flops: How many of the FLOPs are computed in int8, at the chip's rate for it.
    """
    assumed = collectives = 0.0
    scheduled = None
    if costs is not None:
        scheduled = scheduled_seconds(chip, costs)
        assumed = kernel_flops(costs, flops) / (KERNEL_EFFICIENCY * chip.peak_flops)
        # In a ring, each chip passes on all but one of ``chips`` parts: once, or twice to sum and spread the
        # sums.
        moved = costs.collective_bytes
        if "all-reduce" in costs.collectives:
            moved += costs.collectives["all-reduce"].amount
        collectives = (chips - 1) / chips * moved / chip.interconnect_bytes_per_second
    return StepEstimate(
        flop_bound=(flops - int8_flops) / chip.peak_flops + int8_flops / (chip.peak_int8 or chip.peak_flops),
        bandwidth_bound=least_bytes / chip.hbm_bytes_per_second,
        cycles=None if costs is None else costs.cycles / chip.cycles_per_second,
        kernels=assumed if scheduled is None else scheduled,
        kernels_are_scheduled=scheduled is not None,
        assumed_kernels=assumed,
        collectives=collectives,
    )


def scheduled_seconds(chip: Chip, costs: ProgramCosts) -> float | None:
    """Return the time of kernels by their schedules; None if there is a kernel whose schedule is unknown.

    A kernel takes the time of its bundles, or that of its traffic with the main memory where this is longer:
    it reads the next block and writes the last one while it computes.
    """
    if any(kernel.unscheduled for kernel in costs.kernels.values()):
        return None
    return math.fsum(
        max(kernel.cycles / chip.cycles_per_second, kernel.traffic / chip.hbm_bytes_per_second)
        for kernel in costs.kernels.values()
    )


def kernel_flops(costs: ProgramCosts, flops: float) -> float:
    """Return the FLOPs of kernels: those that they state, or those that the rest of the program lacks."""
    if not costs.kernels:
        return 0.0
    return max(costs.kernel_flops, flops - costs.flops)
