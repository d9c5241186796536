"""Read from the text of a compiled program what it costs: FLOPs, cycles, collectives and kernels.

The compiler's own ``cost_analysis`` counts the body of a loop once, and a Pallas kernel as nothing; here the
body counts as often as it runs, and kernels count with the FLOPs that they state and the cycles of their
schedules (:mod:`flax_distil.planning.kernel_schedules`).
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flax_distil.planning.hlo_text import Array, Computation, Instruction, Program, read_program, trip_count
from flax_distil.planning.hlo_traffic import memory_traffic

KERNEL_TARGET = "tpu_custom_call"
"""Target of the custom calls that run Pallas kernels."""

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_WORK = ("fusion", "sort", "scatter", "gather", "reduce-window", "select-and-scatter", "dynamic-reshape")
_CYCLES = r'"estimated_cycles":"?(\d+)'
_KERNEL_CALL = re.compile(rf'%([\w.\-]+) = .* custom-call\(.*custom_call_target="{KERNEL_TARGET}"')
_DIMENSIONS = re.compile(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tally:
    """How often an operation runs, and how much it moves or computes in total.

    Attributes:
        calls: Number of executions.
        amount: Bytes of a collective, on one chip; FLOPs of a kernel, as far as it states them.
        cycles: Cycles of a kernel by its schedule, without waits for memory.
        traffic: Bytes of the operands and results of a kernel that lie in the chip's main memory.
        unscheduled: Number of executions of a kernel whose schedule is unknown.
    """

    calls: float
    amount: float
    cycles: float = 0.0
    traffic: float = 0.0
    unscheduled: float = 0.0

    def plus(self, other: "Tally", times: float) -> "Tally":
        """Return the sum of this tally and ``times`` another one."""
        return Tally(
            calls=self.calls + times * other.calls,
            amount=self.amount + times * other.amount,
            cycles=self.cycles + times * other.cycles,
            traffic=self.traffic + times * other.traffic,
            unscheduled=self.unscheduled + times * other.unscheduled,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramCosts:
    """Costs of one execution of a program on one chip.

    Attributes:
        flops: FLOPs of matrix products and convolutions, two per multiply-add.
        cycles: Sum of the compiler's estimates, without kernels, collectives, asynchronous copies and the
            operations that ``without_cycles`` counts.
        traffic: Bytes that operations read from and write to the chip's main memory.
        collectives: Collectives by kind, such as ``all-reduce``; ``amount`` is in bytes.
        kernels: Pallas kernels by name; ``amount`` is in FLOPs.
        without_cycles: Number of executions of operations for which the compiler gave no estimate.
        unknown_loops: Number of loops whose length depends on the data.
        unread_lines: Number of lines that could not be read, and of products of an unknown form.
    """

    flops: float = 0.0
    cycles: float = 0.0
    traffic: float = 0.0
    collectives: Mapping[str, Tally] = dataclasses.field(default_factory=dict)
    kernels: Mapping[str, Tally] = dataclasses.field(default_factory=dict)
    without_cycles: float = 0.0
    unknown_loops: int = 0
    unread_lines: int = 0

    def plus(self, other: "ProgramCosts", times: float = 1.0) -> "ProgramCosts":
        """Return the sum of these costs and ``times`` the costs of another part."""
        return ProgramCosts(
            flops=self.flops + times * other.flops,
            cycles=self.cycles + times * other.cycles,
            traffic=self.traffic + times * other.traffic,
            collectives=_added(self.collectives, other.collectives, times),
            kernels=_added(self.kernels, other.kernels, times),
            without_cycles=self.without_cycles + times * other.without_cycles,
            unknown_loops=self.unknown_loops + other.unknown_loops,
            unread_lines=self.unread_lines + other.unread_lines,
        )

    @property
    def kernel_flops(self) -> float:
        """Total FLOPs that the kernels state."""
        return sum((kernel.amount for kernel in self.kernels.values()), 0.0)

    @property
    def collective_bytes(self) -> float:
        """Bytes of all collectives."""
        return sum((collective.amount for collective in self.collectives.values()), 0.0)


def _added(mine: Mapping[str, Tally], theirs: Mapping[str, Tally], times: float) -> dict[str, Tally]:
    added = dict(mine)
    for name, tally in theirs.items():
        added[name] = added.get(name, Tally(calls=0.0, amount=0.0)).plus(tally, times)
    return added


def kernel_calls(text: str) -> set[str]:
    """Return the names of the instructions that run Pallas kernels."""
    return {found[1] for found in _KERNEL_CALL.finditer(text)}


def program_costs(
    text: str, *, unknown_trips: int = 1, schedules: Mapping[str, float] | None = None
) -> ProgramCosts:
    """Count the costs of one execution of an optimized HLO module.

    Args:
        text: Result of ``compiled.as_text()``.
        unknown_trips: How often the body of a loop counts if its length depends on the data.
        schedules: Cycles of Pallas kernels by the name of their instruction.

    Returns:
        The costs. Of the branches of a conditional, the one with the most FLOPs counts.
    """
    program = read_program(text)
    if not program.entry:
        return ProgramCosts(unread_lines=max(1, program.unread_lines))
    costs = _Counter(program, unknown_trips, schedules or {}).of(program.entry)
    return costs.plus(ProgramCosts(unread_lines=program.unread_lines))


class _Counter:
    """Follows the calls between computations; each is counted once, and multiplied by its number of runs."""

    def __init__(self, program: Program, unknown_trips: int, schedules: Mapping[str, float]):
        self._program, self._unknown_trips, self._schedules = program, unknown_trips, schedules
        self.of: Callable[[str], ProgramCosts] = functools.cache(self._of)

    def _of(self, name: str) -> ProgramCosts:
        total = ProgramCosts()
        computation = self._program.computations.get(name)
        for instruction in computation.instructions.values() if computation else ():
            assert computation is not None
            total = self._with(total, computation, instruction)
        return total

    def _with(self, total: ProgramCosts, within: Computation, instruction: Instruction) -> ProgramCosts:
        opcode, called = instruction.opcode, instruction.called
        if opcode == "while":
            trips = trip_count(self._program, within, instruction)
            unknown = ProgramCosts(unknown_loops=int(trips is None))
            body = self.of(called.get("body", "")).plus(self.of(called.get("condition", "")))
            return total.plus(unknown).plus(body, float(self._unknown_trips if trips is None else trips))
        if opcode == "conditional":
            branches = [self.of(name) for name in instruction.branches]
            dearest = max(branches, key=lambda c: (c.flops, c.cycles), default=ProgramCosts(unread_lines=1))
            return total.plus(dearest)
        own = self._own(within, instruction)
        inner = called.get("calls") or (called.get("to_apply") if opcode == "call" else None)
        if inner is None:
            return total.plus(own)
        # The fusion itself states its cycles, and intermediate results inside it never reach main memory.
        within_inner = self.of(inner)
        if opcode == "fusion":
            within_inner = dataclasses.replace(within_inner, cycles=0.0, traffic=0.0, without_cycles=0.0)
        return total.plus(own).plus(within_inner)

    def _own(self, within: Computation, instruction: Instruction) -> ProgramCosts:
        """Return the costs of an instruction itself, without those of the computations that it calls."""
        opcode = instruction.opcode
        cycles = instruction.attribute(_CYCLES)
        operands = [within.instructions[name] for name in instruction.operands if name in within.instructions]
        arrays = [array for operand in operands for array in operand.result]
        flops, unread, collectives, kernels = 0.0, 0, {}, {}
        traffic = float(memory_traffic(self._program, within, instruction))
        if opcode in ("dot", "convolution"):
            try:
                flops = (_dot_flops if opcode == "dot" else _convolution_flops)(instruction, *arrays)
            except (IndexError, TypeError, ValueError):  # an unknown form
                unread = 1
        kind = opcode.removesuffix("-start")
        if kind in _COLLECTIVES:
            moved = max(sum(a.bytes for a in arrays), sum(a.bytes for a in instruction.result))
            if opcode.endswith("-start"):  # its result repeats the operands
                moved = max(sum(a.bytes for a in arrays), moved - sum(a.bytes for a in arrays))
            collectives = {kind: Tally(calls=1.0, amount=float(moved))}
        if opcode == "custom-call" and f'custom_call_target="{KERNEL_TARGET}"' in instruction.attributes:
            kernels = {_kernel_name(instruction): self._kernel(instruction, traffic)}
        return ProgramCosts(
            flops=flops,
            cycles=float(cycles or 0),
            traffic=traffic,
            collectives=collectives,
            kernels=kernels,
            without_cycles=float(opcode in _WORK and cycles is None),
            unread_lines=unread,
        )

    def _kernel(self, call: Instruction, traffic: float) -> Tally:
        cycles = self._schedules.get(call.name)
        return Tally(
            calls=1.0,
            amount=_stated_flops(call),
            cycles=cycles or 0.0,
            traffic=traffic,
            unscheduled=float(cycles is None),
        )


def _dot_flops(dot: Instruction, left: Array, right: Array) -> float:
    contracted = dot.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    depth = 1
    for side in filter(None, contracted.split(",")):
        depth *= left.sides[int(side)]
    return 2.0 * dot.result[0].elements * depth


def _convolution_flops(convolution: Instruction, left: Array, right: Array) -> float:
    """Count the FLOPs of a convolution, without products with padding or with the holes of a dilation.

    TPU compilers write every matrix product as a convolution. Products with batch dimensions become a
    convolution over a padded or dilated window, of which only one position meets data.
    """
    labels = _DIMENSIONS.search(convolution.attributes)
    if labels is None:
        raise ValueError("a convolution without dim_labels")
    left_labels, right_labels, result_labels = labels[1], labels[2], labels[3]
    result = convolution.result[0]
    pairs = 1
    spatial = [label for label in result_labels if label.isdigit()]
    window = _Window.read(convolution.attribute(r"window=\{([^}]*)\}") or "", len(spatial))
    for label in spatial:
        pairs *= window.pairs(
            int(label),
            left.sides[left_labels.index(label)],
            right.sides[right_labels.index(label)],
            result.sides[result_labels.index(label)],
        )
    rows = result.sides[result_labels.index("b")] * result.sides[result_labels.index("f")]
    return 2.0 * rows * pairs * right.sides[right_labels.index("i")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
    """The window of a convolution, one entry per spatial dimension."""

    stride: list[int]
    low: list[int]
    lhs_dilate: list[int]
    rhs_dilate: list[int]

    @classmethod
    def read(cls, text: str, count: int) -> "_Window":
        """Read ``size=20x64 stride=19x63 pad=19_19x0_0 lhs_dilate=20x64``; absent parts change nothing."""
        given = dict(part.split("=", 1) for part in text.split() if "=" in part)

        def numbers(name: str, default: int) -> list[int]:
            if name not in given:
                return [default] * count
            return [int(entry.split("_")[0]) for entry in given[name].split("x")]

        return cls(
            stride=numbers("stride", 1),
            low=numbers("pad", 0),
            lhs_dilate=numbers("lhs_dilate", 1),
            rhs_dilate=numbers("rhs_dilate", 1),
        )

    def pairs(self, dimension: int, size: int, taps: int, results: int) -> int:
        """Count the pairs of result position and window position that meet an input element."""
        return _pairs(
            size, taps, results, self.stride[dimension], self.low[dimension],
            self.lhs_dilate[dimension], self.rhs_dilate[dimension],
        )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _pairs(
    size: int, taps: int, results: int, stride: int, low: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    positions = np.arange(results)[:, None] * stride - low + np.arange(taps)[None] * rhs_dilate
    inside = (positions >= 0) & (positions <= (size - 1) * lhs_dilate) & (positions % lhs_dilate == 0)
    return int(inside.sum())


def _kernel_name(call: Instruction) -> str:
    """Return the name of a kernel without the number that the compiler appends."""
    return re.sub(r"(\.(\d+|clone|remat\d*))+$", "", call.name)


def _stated_flops(call: Instruction) -> float:
    """Return the FLOPs in the cost estimate of a kernel; 0 if it has none."""
    found = call.attribute(r'"cost_estimate":\s*(\{[^}]*\})')
    try:
        stated: Any = json.loads(found) if found else {}
        return float(stated.get("flops", 0))
    except (ValueError, TypeError):
        return 0.0
