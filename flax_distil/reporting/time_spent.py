"""Sections about time: what it went into, and how often the run was begun again."""

from html import escape
from typing import Any

from flax_distil.core.svg_plot import COLORS
from flax_distil.distillation.monitoring.goodput_record import CAUSES
from flax_distil.distillation.monitoring.progress_line import duration
from flax_distil.evaluation.report import html
from flax_distil.reporting.run_data import RunData, time_text

_TEXTS = {
    "start": "starting: imports, models, data", "compile": "compiling", "data": "waiting for data",
    "step": "training steps", "save": "saving checkpoints", "evaluation": "evaluations",
    "export": "export and end", "lost": "steps lost to a restart",
}  # fmt: skip


def time_section(run: RunData) -> str | None:
    """Return what wall time went into, over all attempts."""
    seconds = {name: float(run.goodput.get("seconds", {}).get(name, 0.0)) for name in CAUSES}
    whole = sum(seconds.values())
    if not whole:
        return None
    ordered = sorted((name for name in CAUSES if seconds[name]), key=lambda name: -seconds[name])
    bar = "".join(_bar_part(name, seconds[name] / whole, number) for number, name in enumerate(ordered))
    rows = [[_TEXTS[name], duration(seconds[name]), f"{seconds[name] / whole:.1%}"] for name in ordered]
    between = float(run.goodput.get("seconds_between_attempts", 0.0))
    text = f"{seconds['step'] / whole:.1%} of {duration(whole)} went into steps that count (goodput)."
    if between >= 1:
        text += f" Besides, {duration(between)} passed between attempts."
    return html.section(
        "Where the time went",
        f'<div class="bar" role="img" aria-label="{escape(text)}">{bar}</div>',
        html.note(text),
        html.table([["", "time", "share"], *rows]),
    )


def _bar_part(name: str, share: float, number: int) -> str:
    style = (
        f"width: {share:.3%}; background: var(--c{number % COLORS}); opacity: {1 if number < COLORS else 0.5}"
    )
    return f'<span style="{style}" title="{escape(_TEXTS[name])}: {share:.1%}"></span>'


def attempts_section(run: RunData) -> str | None:
    """Return the attempts of a run that was begun more than once."""
    if len(run.timed_attempts) < 2:
        return None
    rows = [
        [
            str(number), time_text(attempt.get("started")) or "-", _steps(attempt),
            duration(sum(_seconds(attempt).values())), duration(_seconds(attempt).get("lost", 0.0)),
            duration(attempt.get("seconds_to_first_step") or 0.0),
        ]
        for number, attempt in enumerate(run.timed_attempts, 1)
    ]  # fmt: skip
    head = ["", "started", "steps", "time", "lost", "to its first step"]
    return html.section(f"{len(rows)} attempts", html.table([head, *rows], texts=2))


def _seconds(attempt: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in attempt.get("seconds", {}).items()}


def _steps(attempt: dict[str, Any]) -> str:
    return f"{attempt.get('first_step', 0):,} to {attempt.get('last_step', 0):,}"
