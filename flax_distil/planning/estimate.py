"""How fast a program could go on a chip: floors, and an estimate that is called one."""

import dataclasses

from flax_distil.planning.chips import Chip
from flax_distil.planning.hlo import ProgramCosts

KERNEL_EFFICIENCY = 1 / 3
"""Share of the peak at which Pallas kernels are taken to run: not measured. Attention with heads of 64
features fills at most half of a 128 wide matrix unit, and has its softmax besides."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
    """Seconds of one run of a program, on every chip at once.

    Attributes:
        flop_bound: Its FLOPs at the peak: no program is faster.
        bandwidth_bound: What must cross the HBM interface at least, at its full width.
        cycles: The compiler's cycles over the clock; None where the program could not be read.
        kernels: FLOPs of Pallas kernels, which the cycles leave out, at ``KERNEL_EFFICIENCY``.
        collectives: Bytes of collectives, which they leave out too, at the full width of the links and
            as if nothing overlapped.
    """

    flop_bound: float
    bandwidth_bound: float
    cycles: float | None
    kernels: float
    collectives: float

    @property
    def floor(self) -> float:
        """The higher of the bounds."""
        return max(self.flop_bound, self.bandwidth_bound)

    @property
    def seconds(self) -> float | None:
        """The estimate; None where only the floor is known."""
        if self.cycles is None:
            return None
        return max(self.floor, self.cycles + self.kernels + self.collectives)


def estimate_step(
    chip: Chip, costs: ProgramCosts | None, *, flops: float, least_bytes: float, chips: int
) -> StepEstimate:
    """Turn counts into seconds.

    Args:
        chip: What runs it.
        costs: Read from the program; None if it could not be read.
        flops: Counted analytically, per chip.
        least_bytes: HBM traffic that cannot be avoided, per chip.
        chips: How many take part in collectives.
    """
    kernels = collectives = 0.0
    if costs is not None:
        kernels = kernel_flops(costs, flops) / (KERNEL_EFFICIENCY * chip.peak_flops)
        # A ring passes all but one part in ``chips`` on: once, or twice to sum and to spread the sums.
        moved = costs.collective_bytes
        if "all-reduce" in costs.collectives:
            moved += costs.collectives["all-reduce"].amount
        collectives = (chips - 1) / chips * moved / chip.interconnect_bytes_per_second
    return StepEstimate(
        flop_bound=flops / chip.peak_flops,
        bandwidth_bound=least_bytes / chip.hbm_bytes_per_second,
        cycles=None if costs is None else costs.cycles / chip.cycles_per_second,
        kernels=kernels,
        collectives=collectives,
    )


def kernel_flops(costs: ProgramCosts, flops: float) -> float:
    """Return the work of kernels: what they state, or what the rest of the program lacks."""
    if not costs.kernels:
        return 0.0
    return max(costs.kernel_flops, flops - costs.flops)
