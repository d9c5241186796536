"""The page of a training run: its sections in the order in which they are read."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from flax_distil.core import svg_plot
from flax_distil.distillation.monitoring.progress_line import duration
from flax_distil.evaluation.report import html
from flax_distil.reporting.run_data import RunData, time_text
from flax_distil.reporting.samples import samples_section, worst_sections
from flax_distil.reporting.time_spent import attempts_section, time_section

STYLE = (
    svg_plot.STYLE
    + """
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.badge { border-radius: 1em; padding: .1em .7em; font-weight: 600; background: var(--shade); }
.badge.finished { color: var(--ins); background: var(--ins-bg); }
.badge.running { color: var(--sub); background: var(--sub-bg); }
.badge.stopped { color: var(--del); background: var(--del-bg); }
.bar { display: flex; height: 1.6rem; border-radius: 6px; overflow: hidden; background: var(--shade); }
.bar span { min-width: 1px; }
"""
)


def run_page(run: RunData) -> str:
    """Return the whole page."""
    sections = [
        _header(run),
        _curves(run),
        _evaluations(run),
        *worst_sections(run),
        samples_section(run),
        time_section(run),
        attempts_section(run),
        _settings(run),
    ]
    return html.page(f"Training run: {run.folder.name}", filter(None, sections), style=STYLE)


_SOFTWARE = ("flax_distil", "jax", "libtpu", "flax", "Python")


def _header(run: RunData) -> str:
    settings, done = run.settings, f"{run.step:,}"
    if run.max_steps:
        done += f" of {run.max_steps:,} updates ({run.step / run.max_steps:.0%})"
    facts: dict[str, Any] = {
        "Progress": done,
        "Teacher": _teacher(run),
        "Student": _student(run),
        "Training data": _training_data(run),
        "Evaluation data": settings.get("eval_dataset_name"),
        "Devices": _devices(run),
        "Started": time_text(next((attempt.get("started") for attempt in run.attempts), None)),
        "Last sign of life": time_text(
            next((attempt.get("written") for attempt in run.timed_attempts[-1:]), None)
        ),
        "Wall time": duration(float(run.goodput["wall_seconds"])) if "wall_seconds" in run.goodput else None,
        "Software": _software(run),
    }
    badge = f'<dt>Status</dt><dd><span class="badge {run.status}">{run.status}</span></dd>'
    return _list(facts, badge)


def _teacher(run: RunData) -> str:
    name = run.settings.get("teacher_model_name_or_path")
    return f"{name}{_size(run, 'teacher')}" if name else "none, trained on the labels"


def _student(run: RunData) -> str | None:
    settings = run.settings
    count, chosen = settings.get("student_decoder_layers"), settings.get("student_decoder_layer_indices")
    made = f"{count} decoder layers of the teacher" if count else None
    if chosen:
        made = f"decoder layers {', '.join(map(str, chosen))} of the teacher"
    name = settings.get("model_name_or_path") or made
    return None if name is None else f"{name}{_size(run, 'student')}"


def _size(run: RunData, role: str) -> str:
    """Return the layers and parameters of a model in brackets, where the run has noted them."""
    models = run.record.get("models")
    model = models.get(role) if isinstance(models, dict) else None
    if not isinstance(model, dict) or not {"encoder_layers", "decoder_layers", "parameters"} <= model.keys():
        return ""
    layers = f"{model['encoder_layers']} + {model['decoder_layers']} layers"
    return f" ({layers}, {float(model['parameters']) / 1e6:,.1f} M parameters)"


def _training_data(run: RunData) -> str | None:
    name = run.settings.get("train_dataset_name")
    kept = [reasons.get("kept", {}) for reasons in run.samples.get("dropped", {}).values()]
    hours = sum(float(count.get("seconds", 0.0)) for count in kept) / 3600
    return f"{name} ({hours:,.1f} h)" if name and hours else name


def _devices(run: RunData) -> str | None:
    found = next((attempt.get("devices") for attempt in reversed(run.attempts)), None)
    if not isinstance(found, dict):
        return None
    several = f", {found['processes']} processes" if found.get("processes", 1) != 1 else ""
    return f"{found.get('count')} × {found.get('kind')}{several}"


def _software(run: RunData) -> str | None:
    last = next(iter(run.attempts[-1:]), {})
    versions = last.get("versions", {}) | {"Python": last.get("python")}
    shown = [f"{name} {versions[name]}" for name in _SOFTWARE if versions.get(name)]
    if commit := last.get("flax_distil_git_commit"):
        shown.append(f"commit {commit[:10]}")
    return ", ".join(shown)


_TERMS = {"ce_loss": "cross-entropy", "kl_loss": "KL", "mse_loss": "MSE"}
"""Terms of the loss by their names in the metrics; a user's own terms keep theirs."""


def _curves(run: RunData) -> str:
    logged = {name for line in run.metrics for name in line if not name.startswith("eval_")}
    logged -= set() if run.has_divergence else {"kl_loss"}
    terms = [*(logged & {"loss"}), *sorted(name for name in logged if name.endswith("_loss"))]
    sets = run.evaluated_sets
    plots = [
        svg_plot.line_plot("Loss", {_TERMS.get(name, name): run.points(name) for name in terms}),
        svg_plot.line_plot(
            "Word error rate", {name: run.points(f"{prefix}wer") for name, prefix in sets.items()}, unit=" %"
        ),
        svg_plot.line_plot(
            "Evaluation loss", {name: run.points(f"{prefix}loss") for name, prefix in sets.items()}
        ),
        svg_plot.line_plot(
            "Share of label tokens that are right",
            {
                "training": run.points("accuracy"),
                **{name: run.points(f"{prefix}accuracy") for name, prefix in sets.items()},
            },
        ),
        svg_plot.line_plot("Learning rate", {"learning rate": run.points("learning_rate")}),
        svg_plot.line_plot("Gradient norm before clipping", {"norm": run.points("grad_norm")}),
        svg_plot.line_plot("Samples per second", {"samples": run.points("samples_per_second")}, unit=" /s"),
        svg_plot.line_plot(
            "Hours of audio per hour", {"audio": run.points("audio_seconds_per_second")}, unit=" h/h"
        ),
        svg_plot.line_plot(
            "Waiting for data, and use of the peak",
            {"wait": run.points("data_wait_share", scale=100.0), "MFU": run.points("mfu", scale=100.0)},
            unit=" %",
        ),
    ]
    drawn = "".join(plots)
    if not drawn:
        return html.section("Curves", html.note("There is no log line yet."))
    return html.section("Curves", f'<div class="plots">{drawn}</div>')


_SHOWN_EVALUATIONS = 30


def _evaluations(run: RunData) -> str | None:
    if not run.evaluated_steps:
        return None
    lines = {
        (line["step"], prefix): line
        for line in run.metrics
        for prefix in run.evaluated_sets.values()
        if f"{prefix}wer" in line
    }
    head = ["step", "data set", "WER %", "loss", "CE", "KL", "accuracy", "samples", "skipped", "seconds"]
    rows = [
        [f"{step:,}", name, *(_cell(line.get(f"{prefix}{score}")) for score in _SCORES)]
        for step in run.evaluated_steps[-_SHOWN_EVALUATIONS:]
        for name, prefix in run.evaluated_sets.items()
        if (line := lines.get((step, prefix))) is not None
    ]
    left = len(run.evaluated_steps) - _SHOWN_EVALUATIONS
    more = html.note(f"The first {left} evaluations are not listed.") if left > 0 else ""
    return html.section("Evaluations", html.table([head, *rows], texts=2), _best(run), more)


_SCORES = ("wer", "loss", "ce_loss", "kl_loss", "accuracy", "samples", "skipped", "seconds")


def _best(run: RunData) -> str:
    parts = []
    for name, prefix in run.evaluated_sets.items():
        if points := run.points(f"{prefix}wer"):
            step, rate = min(points, key=lambda point: point[1])
            parts.append(f"{name}: {rate:.2f} % at step {step:,.0f}")
    return html.note(f"Lowest word error rate of {'; '.join(parts)}.") if parts else ""


def _cell(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _settings(run: RunData) -> str | None:
    if not run.settings:
        return None
    given = next((attempt.get("arguments") for attempt in reversed(run.attempts)), None) or {}
    return html.section(
        "Settings",
        _list(given),
        html.details("All settings", json.dumps(run.settings, indent=2, ensure_ascii=False)),
    )


def _list(facts: Mapping[str, Any], first: str = "") -> str:
    """Return names and what they stand for as a list, without those that stand for nothing."""
    rows = [
        f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>"
        for name, text in facts.items()
        if text not in (None, "")
    ]
    return f"<dl>{first}{''.join(rows)}</dl>"
