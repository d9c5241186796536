"""Several plans beside each other: slices to rent, or the label lengths of one run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax_distil.planning.chips import GIB

_COLUMNS = {
    "slice": 12, "chips": 6, "tokens": 7, "GiB": 8, "of": 8, "fits": 5, "s per step": 11, "samples/s": 10,
    "hours/hour": 11, "per 1,000 h": 12,
}  # fmt: skip


def comparison_as_text(plans: Sequence[Mapping[str, Any]], means: Mapping[str, float | None]) -> str:
    """Return a table of plans.

    Args:
        plans: Figures of the plans, as JSON has them.
        means: Time of the mean step of a mix of label lengths by slice; empty without a mix.
    """
    return "\n".join(_lines(plans, means))


def _lines(plans: Sequence[Mapping[str, Any]], means: Mapping[str, float | None]) -> Iterator[str]:
    yield "".join(f"{name:>{width}}" for name, width in _COLUMNS.items())
    for plan in plans:
        memory, hours = plan["hbm_bytes_per_chip"], plan.get("audio_hours_per_hour")
        cells = (
            plan["topology"], plan["chips"], plan["label_length"], _cell(memory and memory / GIB, ".2f"),
            f"{plan['hbm_limit_bytes_per_chip'] / GIB:.2f}", "yes" if plan["fits"] else "no",
            _cell(plan["estimated_step_seconds"], ".4f"), _cell(plan.get("samples_per_second"), ".1f"),
            _cell(hours, ".0f"), _cell(plan.get("cost_per_1000_audio_hours"), ".2f"),
        )  # fmt: skip
        yield "".join(f"{cell:>{width}}" for cell, width in zip(cells, _COLUMNS.values(), strict=True))
    for name, seconds in means.items():
        yield f"mean step of the label lengths on {name}: {_cell(seconds, '.4f')} s"
    yield "s per step: an estimate without data loading, evaluation or checkpoints; nothing was run on a TPU"
    yield "hours/hour: hours of speech per hour if all windows are full (packed); per 1,000 h: their price"


def mean_step_seconds(plans: Sequence[Mapping[str, Any]], shares: Mapping[int, float]) -> float | None:
    """Return the time of the mean step of a mix; None if the time of a length is unknown.

    Args:
        plans: Figures of one plan per length.
        shares: Shares of the batches by label length.
    """
    seconds = {plan["label_length"]: plan["estimated_step_seconds"] for plan in plans}
    if any(seconds[length] is None for length in shares):
        return None
    return sum(share * seconds[length] for length, share in shares.items()) / sum(shares.values())


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
