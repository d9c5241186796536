"""Sections about samples: where the student errs, and what training left out."""

from collections.abc import Sequence
from typing import cast

from flax_distil.distillation.evaluation.predictions import Prediction
from flax_distil.evaluation.report import html
from flax_distil.metrics.word_diff import DiffKind, DiffPart
from flax_distil.reporting.run_data import RunData

_WORST = 10

_SKIPPED_SHOWN = 30


def worst_sections(run: RunData) -> list[str]:
    """Return a section for each data set of the latest evaluation, with the samples that have most errors."""
    sections = []
    for name, samples in run.predictions.items():
        ranked = sorted((sample for sample in samples if sample.errors), key=_badness)[:_WORST]
        if ranked:
            title = f"Most errors in {name}, at the latest evaluation"
            sections.append(html.section(title, html.DIFF_LEGEND, *map(_sample, ranked)))
        else:
            kept = [sample for sample in samples if sample.words]
            text = f"None of the {len(kept)} samples that were kept has an error." if kept else ""
            sections.append(html.section(f"Samples of {name}", html.note(text)))
    return sections


def _badness(sample: Prediction) -> tuple[int, int]:
    return -sample.errors, sample.position


def _sample(sample: Prediction) -> str:
    rate = f" ({sample.errors / sample.words:.0%})" if sample.words else ""
    title = html.note(
        f"{sample.id}: {html.counted(sample.errors, 'error')} in {html.counted(sample.words, 'word')}{rate}"
    )
    parts = [
        DiffPart(cast(DiffKind, kind), tuple(left.split()), tuple(right.split()))
        for kind, left, right in sample.diff
    ]
    return f'<div class="sample">{title}{html.diff(parts)}</div>'


def samples_section(run: RunData) -> str | None:
    """Return what the filters dropped, and which samples could not be used."""
    if not run.samples:
        return None
    dropped, skipped = run.samples.get("dropped", {}), run.samples.get("skipped", {})
    rows = [
        [name, reason, f"{count['rows']:,}", f"{count['seconds'] / 3600:,.2f}"]
        for name, reasons in dropped.items()
        for reason, count in reasons.items()
    ]
    parts = [html.table([["data set", "", "samples", "hours"], *rows], texts=2)] if rows else []
    counts = skipped.get("counts", {})
    if counts:
        listed = ", ".join(f"{number:,} {kind}" for kind, number in counts.items())
        parts.append(html.note(f"Samples that could not be used: {listed}."))
        parts.append(_skipped(skipped.get("samples", []), sum(counts.values())))
    elif rows:
        parts.append(html.note("No sample that was kept is known to be unusable."))
    return html.section("Training data", *parts) if parts else None


def _skipped(samples: Sequence[dict[str, str]], total: int) -> str:
    rows = [[sample["id"], sample["reason"]] for sample in samples[:_SKIPPED_SHOWN]]
    more = html.note(f"and {total - len(rows):,} more") if total > len(rows) else ""
    return html.table([["sample", "why"], *rows], texts=2) + more
