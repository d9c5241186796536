"""Make a plan: compile a program for a TPU slice, and find whether it fits and how fast it could be."""

import contextlib
import dataclasses
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from flax_distil.planning.chips import GIB
from flax_distil.planning.estimate import StepEstimate, estimate_step
from flax_distil.planning.hlo import ProgramCosts, kernel_calls
from flax_distil.planning.kernel_schedules import forget_schedules, read_schedules, schedule_folder
from flax_distil.planning.largest_batch import LargestBatch, Trial, find_largest_batch
from flax_distil.planning.memory import MemoryUse, memory_use
from flax_distil.planning.topologies import Topology

ENOUGH_TIME = 1.2
"""Another compilation begins if the remaining time is at least this many times that of the longest one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A program that can be lowered for any batch size.

    Attributes:
        what: ``train``, ``generate`` or ``encode``.
        lower: Function of the batch per device that returns the lowered program and its arguments by name, as
            described leaves. Only the argument named ``batch`` grows with the batch.
        flops: Function of the batch per device that returns the FLOPs of one step on one chip, by part.
        least_bytes: Function of the batch per device that returns the HBM traffic of one step on one chip
            that cannot be avoided.
        costs: Function of the text of the compiled program, and of the cycles of its kernels by the name of
            their instruction, that returns the costs of one step.
        int8_flops: Function of the batch per device that returns how many of these FLOPs are in int8.
        resident: Arrays that stay on the chips beside the arguments, by name.
    """

    what: str
    lower: Callable[[int], tuple[jax.stages.Lowered, Mapping[str, Any]]]
    flops: Callable[[int], Mapping[str, float]]
    least_bytes: Callable[[int], float]
    costs: Callable[[str, Mapping[str, float]], ProgramCosts]
    int8_flops: Callable[[int], float] = lambda batch: 0.0
    resident: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known about a job on a TPU slice before it runs.

    Attributes:
        job: The planned job.
        topology: The TPU slice.
        batch: Number of samples per device that the user asked for.
        memory: Memory use; None if the compiler found that the batch does not fit.
        largest: The largest batch that fits.
        flops: FLOPs of one step on one chip, counted analytically, by part.
        int8_flops: How many of these are computed in int8.
        least_bytes: HBM traffic of a step on one chip that cannot be avoided.
        costs: Costs read from the compiled program; None if it did not fit or could not be read.
        estimate: Estimated time and its lower bounds.
        notes: Remarks for the reader of the report.
    """

    job: Job
    topology: Topology
    batch: int
    memory: MemoryUse | None
    largest: LargestBatch
    flops: Mapping[str, float]
    int8_flops: float
    least_bytes: float
    costs: ProgramCosts | None
    estimate: StepEstimate
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the batch that the user asked for fits."""
        return self.memory is not None and self.memory.total <= self.topology.chip.hbm_bytes

    @property
    def devices(self) -> int:
        """Number of devices of the slice; all figures of a plan are of one of them."""
        return len(self.topology.devices)

    @property
    def chips(self) -> int:
        """Number of chips of the slice."""
        return self.devices // self.topology.chip.devices

    @property
    def unit(self) -> str:
        """What a device is called: a chip, or one of the cores of a chip."""
        return "chip" if self.topology.chip.devices == 1 else "core"


def make_plan(job: Job, topology: Topology, *, batch: int, search_seconds: float) -> Plan:
    """Compile a job for a TPU slice with the given batch, then search for the largest batch that fits.

    Args:
        job: The job.
        topology: The TPU slice.
        batch: Number of samples per device.
        search_seconds: Time limit of the search; see :class:`PlanConfig`.
    """
    compiler = _Compiler(job, topology.chip.hbm_bytes)
    first = compiler.compile(batch)
    costs, memory = compiler.costs, compiler.memory
    largest = find_largest_batch(
        first,
        limit=topology.chip.hbm_bytes,
        fixed=compiler.fixed_bytes,
        compile_batch=compiler.compile,
        may_compile=lambda: compiler.may_go_on(search_seconds),
    )
    flops, int8_flops, least_bytes = job.flops(batch), job.int8_flops(batch), job.least_bytes(batch)
    return Plan(
        job=job,
        topology=topology,
        batch=batch,
        memory=memory,
        largest=largest,
        flops=flops,
        int8_flops=int8_flops,
        least_bytes=least_bytes,
        costs=costs,
        estimate=estimate_step(
            topology.chip,
            costs,
            flops=sum(flops.values()),
            least_bytes=least_bytes,
            chips=len(topology.devices),
            int8_flops=int8_flops,
        ),
        notes=tuple(compiler.notes),
    )


class _Compiler:
    """Compiles a job with several batches, and keeps the costs and memory use of the first of them."""

    def __init__(self, job: Job, limit: float):
        self._job = job
        self._start = time.monotonic()
        self._limit = limit
        self._compilations = 0
        self.longest = 0.0
        self.fixed_bytes = 0
        self.memory: MemoryUse | None = None
        self.costs: ProgramCosts | None = None
        self.notes: list[str] = []

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def may_go_on(self, search_seconds: float) -> bool:
        """Return whether to compile once more; a line through one batch alone is not reliable."""
        if self._compilations == 1:
            return search_seconds > 0
        return self.seconds + ENOUGH_TIME * self.longest < search_seconds

    def compile(self, batch: int) -> Trial:
        """Compile one batch; a batch that does not fit is a trial too."""
        start, is_first = time.monotonic(), self._compilations == 0
        self._compilations += 1
        lowered, trees = self._job.lower(batch)
        try:
            compiled, text, schedules = _compile(lowered)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if is_first:
                self.notes.append(f"compiler: {str(error).splitlines()[0]}")
            return Trial(batch=batch, fits=False, bytes=_bytes_needed(str(error)))
        finally:
            self.longest = max(self.longest, time.monotonic() - start)
        memory = memory_use(compiled, trees, resident=self._job.resident)
        self.fixed_bytes = memory.arguments + memory.resident + memory.code - memory.shares.get("batch", 0)
        if is_first:
            self.memory, self.costs = memory, self._read(text, schedules)
        return Trial(batch=batch, fits=memory.total <= self._limit, bytes=memory.total)

    def _read(self, text: str, schedules: Mapping[str, float]) -> ProgramCosts | None:
        costs = self._job.costs(text, schedules)
        if costs.cycles > 0:
            return costs
        self.notes.append("the compiled program could not be read: only the floor is known")
        return None


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str, Mapping[str, float]]:
    """Compile a program, and return it with its optimized text and the cycles of its kernels.

    Both are read from what the compiler itself writes.

    ``as_text`` is not used because another library prints its text, which does not know all operations of a
    v6e. JAX's compilation cache keeps nothing of it: a program for a TPU cannot be read back without one.
    """
    with tempfile.TemporaryDirectory() as folder, _nothing_kept():
        options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        forget_schedules()
        compiled = lowered.compile(compiler_options=options)
        written = Path(folder).rglob("*.after_codegen.txt")
        text = max((file.read_text(encoding="utf-8") for file in written), key=len, default="")
    return compiled, text, read_schedules(schedule_folder(), kernel_calls(text))


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _bytes_needed(message: str) -> int | None:
    """Return how many bytes a program would need, from the compiler's error message; None if not found."""
    found = re.search(r"total memory required[^(]*\(([\d.]+)G\)|Used ([\d.]+)G of", message)
    return None if found is None else int(float(found[1] or found[2]) * GIB)
