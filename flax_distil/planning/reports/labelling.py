"""The plan of labelling: the teacher's encoder and its decoding steps, for one window of speech per row."""

from collections.abc import Iterator
from typing import Any

from flax_distil.planning.chips import GIB
from flax_distil.planning.plan import Plan
from flax_distil.planning.reports.report import JobDescription, plan_as_json, speech_figures, speech_lines


def labelling_as_json(
    encoder: Plan, step: Plan, description: JobDescription, *, new_tokens: int
) -> dict[str, Any]:
    """Return the figures of labelling by name, with those of both programs.

    Args:
        encoder: Plan of the encoder.
        step: Plan of one decoding step with the same batch.
        description: What a report says beside the figures; ``samples_per_step`` is the rows of a batch.
        new_tokens: Number of decoding steps of a batch: the length of its longest label.
    """
    memory = None
    if encoder.memory is not None and step.memory is not None:
        memory = max(encoder.memory.total, step.memory.total)
    fits = encoder.fits and step.fits
    seconds = None
    if fits and encoder.estimate.seconds is not None and step.estimate.seconds is not None:
        seconds = encoder.estimate.seconds + new_tokens * step.estimate.seconds
    rate = None if seconds is None else description.samples_per_step / seconds
    return {
        "what": "label",
        "topology": step.topology.name,
        "chips": step.chips,
        "teacher": description.teacher,
        "per_device_batch_size": step.batch,
        "label_length": description.label_length,
        "new_tokens": new_tokens,
        "fits": fits,
        "hbm_bytes_per_chip": memory,
        "hbm_limit_bytes_per_chip": int(step.topology.chip.hbm_bytes),
        "largest_per_device_batch": min(encoder.largest.batch, step.largest.batch),
        "encoder_seconds": encoder.estimate.seconds,
        "decoding_step_seconds": step.estimate.seconds,
        "estimated_step_seconds": seconds,
        "samples_per_second": rate,
        **speech_figures(rate, chips=step.chips, description=description),
        "notes": [*description.notes],
        "programs": {
            "encoder": plan_as_json(encoder, description),
            "decoding_step": plan_as_json(step, description),
        },
    }


def labelling_as_text(encoder: Plan, step: Plan, figures: dict[str, Any]) -> str:
    """Return the plan of labelling as text for people; estimates are marked as such."""
    return "\n".join(_lines(encoder, step, figures))


def _lines(encoder: Plan, step: Plan, figures: dict[str, Any]) -> Iterator[str]:
    unit, limit = step.unit, figures["hbm_limit_bytes_per_chip"] / GIB
    yield f"labels of {figures['teacher']} on {figures['topology']} ({figures['chips']} chips)"
    yield f"{step.batch} windows per {unit}, {figures['label_length']} tokens per window"
    yield "compiled for that TPU; nothing was allocated, and nothing was run on one"
    yield ""
    yield f"memory per {unit}, as the compiler allocates it (GiB)"
    for name, plan in (("encoder", encoder), ("decoding", step)):
        if plan.memory is None:
            yield f"  {name:36} does not fit into {limit:.2f}"
        else:
            verdict = "fits" if plan.fits else "does not fit"
            yield f"  {name:36}{plan.memory.total / GIB:8.2f} of {limit:.2f}: {verdict}"
    yield ""
    yield "time per batch (seconds; estimates)"
    if figures["estimated_step_seconds"] is None:
        yield "  no estimate"
        return
    one = figures["decoding_step_seconds"]
    yield f"  {'encoder':44}{figures['encoder_seconds']:10.5f}"
    steps = f"{figures['new_tokens']} decoding steps"
    yield f"  {steps:44}{figures['new_tokens'] * one:10.5f} ({one:.5f} each)"
    yield f"  {'estimate':44}{figures['estimated_step_seconds']:10.5f}"
    yield f"  {figures['samples_per_second']:.1f} windows/s"
    yield from speech_lines(figures)
    yield from (f"note: {note}" for note in figures["notes"])
