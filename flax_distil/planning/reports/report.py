"""Write a plan as text and as JSON."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from flax_distil.planning.chips import GIB
from flax_distil.planning.estimate import KERNEL_EFFICIENCY
from flax_distil.planning.largest_batch import LargestBatch
from flax_distil.planning.plan import Plan

_LEFT_OUT = "Pallas kernels, collectives, asynchronous copies"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobDescription:
    """What a report says about a job beside its figures.

    Attributes:
        teacher: Name of the teacher; None without one.
        student: Name of the student, or how it is made.
        label_length: Number of tokens per sample.
        samples_per_step: Number of samples of a step on all chips and in all micro-batches.
        micro_batches: Number of micro-batches per step.
        max_steps: Number of steps of the distillation; None if unknown.
        window_seconds: Length of the audio window of a sample.
        price_per_chip_hour: Price of one chip for an hour; None if unknown.
        notes: Remarks that are printed with those of the plan.
    """

    teacher: str | None
    student: str
    label_length: int
    samples_per_step: int
    micro_batches: int
    max_steps: int | None
    window_seconds: float = 30.0
    price_per_chip_hour: float | None = None
    notes: tuple[str, ...] = ()


def plan_as_json(plan: Plan, description: JobDescription) -> dict[str, Any]:
    """Return every figure by name, in bytes, FLOPs and seconds; unknown figures are None."""
    estimate, memory, costs = plan.estimate, plan.memory, plan.costs
    seconds = estimate.seconds if plan.fits else None
    samples = description.samples_per_step
    steps = description.max_steps
    hours = None if seconds is None or steps is None else seconds * steps / 3600
    price = description.price_per_chip_hour
    cost = None if hours is None or price is None else hours * plan.chips * price
    rate = None if seconds is None else samples / seconds
    figures = {
        "what": plan.job.what,
        "topology": plan.topology.name,
        "chips": plan.chips,
        "teacher": description.teacher,
        "student": description.student,
        "per_device_batch_size": plan.batch,
        "micro_batches": description.micro_batches,
        "label_length": description.label_length,
        "fits": plan.fits,
        "hbm_bytes_per_chip": None if memory is None else memory.total,
        "hbm_limit_bytes_per_chip": int(plan.topology.chip.hbm_bytes),
        "memory": None if memory is None else dataclasses.asdict(memory),
        "largest_per_device_batch": plan.largest.batch,
        "largest_batch_found_by": _found_by(plan.largest),
        "largest_compiled_batch_that_fits": plan.largest.surely,
        "compiled_batches": {str(trial.batch): trial.bytes for trial in plan.largest.trials},
        "flops_per_step": sum(plan.flops.values()) * plan.devices,
        "flops_per_step_per_chip": sum(plan.flops.values()),
        "flops_per_step_per_chip_by_part": dict(plan.flops),
        "int8_flops_per_step_per_chip": plan.int8_flops,
        "compiled_flops_per_step_per_chip": None if costs is None else costs.flops,
        "least_bytes_per_step_per_chip": plan.least_bytes,
        "compiled_bytes_per_step_per_chip": None if costs is None else costs.traffic,
        "compiled_bytes_over_least": None if costs is None else costs.traffic / plan.least_bytes,
        "collectives": {
            kind: {"calls": tally.calls, "bytes": tally.amount}
            for kind, tally in (costs.collectives if costs else {}).items()
        },
        "kernels": {
            name: {
                "calls": tally.calls,
                "stated_flops": tally.amount,
                "scheduled_cycles": None if tally.unscheduled else tally.cycles,
            }
            for name, tally in (costs.kernels if costs else {}).items()
        },
        "flop_bound_seconds": estimate.flop_bound,
        "bandwidth_bound_seconds": estimate.bandwidth_bound,
        "floor_seconds": estimate.floor,
        "compiler_cycles": None if costs is None else costs.cycles,
        "compiler_cycles_seconds": estimate.cycles,
        "kernel_seconds": estimate.kernels,
        "kernel_seconds_from": "schedule" if estimate.kernels_are_scheduled else "assumption",
        "assumed_kernel_seconds": estimate.assumed_kernels,
        "collective_seconds": estimate.collectives,
        "estimated_step_seconds": seconds,
        "notes": [*description.notes, *plan.notes],
    }
    if plan.job.what == "train":
        figures |= {
            "samples_per_second": rate,
            "max_steps": steps,
            "estimated_hours": hours,
            "estimated_cost": cost,
            **speech_figures(rate, chips=plan.chips, description=description),
        }
    elif plan.job.what == "generate":
        figures["tokens_per_second"] = rate
    return figures


def speech_figures(
    windows_per_second: float | None, *, chips: int, description: JobDescription
) -> dict[str, float | None]:
    """Return how much speech a slice gets through, in windows that are full as packing makes them.

    Args:
        windows_per_second: Rate of the whole slice; None if unknown.
        chips: Number of its chips.
        description: Length of a window, and the price of a chip.
    """
    speed = None if windows_per_second is None else windows_per_second * description.window_seconds
    price = description.price_per_chip_hour
    return {
        "audio_hours_per_hour": speed,
        "cost_per_1000_audio_hours": None if not speed or price is None else 1000 / speed * chips * price,
    }


def speech_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Say in words what :func:`speech_figures` returned."""
    if figures["audio_hours_per_hour"] is not None:
        speed = f"{figures['audio_hours_per_hour']:.0f} hours of speech per hour"
        yield f"  {speed}, if all windows are full (packed)"
    if figures["cost_per_1000_audio_hours"] is not None:
        yield f"  {figures['cost_per_1000_audio_hours']:.2f} is the price of 1,000 such hours"


def plan_as_text(plan: Plan, description: JobDescription) -> str:
    """Return the plan as text for people; estimates are marked as such."""
    return "\n".join(
        [
            *_heading(plan, description),
            "",
            *_memory(plan),
            "",
            *_work(plan),
            "",
            *_time(plan, plan_as_json(plan, description)),
            *(f"note: {note}" for note in (*description.notes, *plan.notes)),
        ]
    )


def _heading(plan: Plan, description: JobDescription) -> Iterator[str]:
    step = {"train": "training step", "generate": "decoding step", "encode": "encoder"}[plan.job.what]
    source = f" from {description.teacher}" if description.teacher else ""
    cores = f", {plan.devices} cores" if plan.unit == "core" else ""
    yield f"{step} of {description.student}{source} on {plan.topology.name} ({plan.chips} chips{cores})"
    micro = f" × {description.micro_batches} micro-batches" if description.micro_batches > 1 else ""
    yield f"{plan.batch} samples per {plan.unit}{micro}, {description.label_length} tokens per sample"
    yield "compiled for that TPU; nothing was allocated, and nothing was run on one"


def _memory(plan: Plan) -> Iterator[str]:
    limit = plan.topology.chip.hbm_bytes
    yield f"memory per {plan.unit}, as the compiler allocates it (GiB)"
    if plan.memory is None:
        yield f"  does not fit into {limit / GIB:.2f}"
    else:
        rows = {
            **plan.memory.shares,
            "activations and other temporaries": plan.memory.temporaries,
            "outputs": plan.memory.outputs,
            "program": plan.memory.code,
        }
        for name, size in rows.items():
            if size >= GIB / 200:
                yield f"  {name:36}{size / GIB:8.2f}"
        verdict = "fits" if plan.fits else "does not fit"
        yield f"  {'total':36}{plan.memory.total / GIB:8.2f} of {limit / GIB:.2f}: {verdict}"
    tried = ", ".join(str(trial.batch) for trial in plan.largest.trials)
    if plan.largest.batch == 0:
        yield f"  no batch fits (compiled: {tried})"
    else:
        found = _found_by(plan.largest)
        if not plan.largest.is_compiled:
            found += f", may be too large; {plan.largest.surely} fits"
        yield f"  largest batch that fits: {plan.largest.batch} per {plan.unit} ({found}; compiled: {tried})"


def _work(plan: Plan) -> Iterator[str]:
    per_device = sum(plan.flops.values())
    yield "work per step (TFLOP)"
    for name, flops in plan.flops.items():
        yield f"  {name.replace('_', ' '):36}{flops / 1e12:8.3f}"
    total = f"on all {plan.unit}s {per_device * plan.devices / 1e12:.3f}"
    yield f"  {f'per {plan.unit}':36}{per_device / 1e12:8.3f}, {total}"
    if plan.int8_flops:
        yield f"  {'of which in int8':36}{plan.int8_flops / 1e12:8.3f}"
    if plan.costs is None:
        return
    share = plan.costs.flops / per_device
    rest = ", the rest in kernels" if plan.costs.kernels else ""
    yield f"  {'found in the compiled program':36}{plan.costs.flops / 1e12:8.3f} ({share:.1%}{rest})"
    if plan.job.what == "generate":
        least, read = plan.least_bytes, plan.costs.traffic
        yield f"memory traffic per token and {plan.unit} (MB)"
        yield f"  {'weights and caches, read once':36}{least / plan.batch / 1e6:8.2f}"
        yield f"  {'in the compiled program':36}{read / plan.batch / 1e6:8.2f} ({read / least:.2f} times)"
    for kind, tally in plan.costs.collectives.items():
        yield f"  {kind}: {tally.calls:.0f} per step, {tally.amount / 1e6:.1f} MB per {plan.unit}"
    for name, tally in plan.costs.kernels.items():
        cycles = "" if tally.unscheduled else f", {tally.cycles / 1e6:.1f} M cycles"
        yield f"  kernel {name}: {tally.calls:.0f} per step{cycles}"
    if plan.costs.unread_lines:
        yield f"  {plan.costs.unread_lines} lines of the program could not be read"


def _time(plan: Plan, figures: Mapping[str, Any]) -> Iterator[str]:
    estimate, costs = plan.estimate, plan.costs
    yield "time per step (seconds; estimates)"
    yield f"  {'floor: FLOPs at the peak':44}{estimate.flop_bound:10.5f}"
    yield f"  {'floor: HBM traffic at full bandwidth':44}{estimate.bandwidth_bound:10.5f}"
    if estimate.cycles is not None and costs is not None:
        without = f"{_LEFT_OUT} and {costs.without_cycles:.0f} operations"
        yield f"  {'compiler cycles over the clock':44}{estimate.cycles:10.5f} (without {without})"
    if costs is not None and costs.kernels:
        assumed = f"at {KERNEL_EFFICIENCY:.0%} of the peak"
        name, remark = f"kernels, {assumed} (assumed)", "their schedule is unknown"
        if estimate.kernels_are_scheduled:
            name = "kernels, scheduled cycles over the clock"
            remark = f"without waits; {assumed} they would take {estimate.assumed_kernels:.5f}"
        yield f"  {name:44}{estimate.kernels:10.5f} ({remark})"
    if costs is not None:
        yield f"  {'collectives at full bandwidth, not hidden':44}{estimate.collectives:10.5f}"
    seconds = figures["estimated_step_seconds"]
    if seconds is None:
        yield "  no estimate"
        return
    yield f"  {'estimate':44}{seconds:10.5f}"
    if plan.job.what == "generate":
        yield f"  {figures['tokens_per_second']:.0f} tokens/s"
        return
    yield f"  {figures['samples_per_second']:.1f} samples/s"
    yield from speech_lines(figures)
    if figures["estimated_hours"] is not None:
        hours, steps = figures["estimated_hours"], figures["max_steps"]
        yield f"  {hours:.1f} hours for {steps} steps: no data loading, evaluation or checkpoint in them"
    if figures["estimated_cost"] is not None:
        yield f"  {figures['estimated_cost']:.0f} is the price of these hours"


def _found_by(largest: LargestBatch) -> str:
    if largest.is_compiled or largest.batch == 0:
        return "compiled"
    return "interpolated" if len(largest.trials) > 1 else "extrapolated"
