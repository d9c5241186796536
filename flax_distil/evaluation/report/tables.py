"""Figures as text: tables for the terminal, and a row per recording for spreadsheets."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flax_distil.audio.non_speech.clips import KINDS
from flax_distil.evaluation.config import CLEAN
from flax_distil.evaluation.output import LEADERBOARD_NAME
from flax_distil.evaluation.results import Evaluation
from flax_distil.metrics.hallucination import compression_ratio

COLUMNS = {
    "wer": "WER", "wer_interval": "95 %", "wer_open_asr_leaderboard": "WER leaderboard",
    "wer_ortho": "WER ortho", "cer": "CER", "cer_ortho": "CER ortho", "insertion_rate": "ins",
    "deletion_rate": "del", "substitution_rate": "sub", "repeated_5grams": "5-dup", "rtfx": "RTFx",
    "tokens_per_second": "tokens/s", "compile_seconds": "compile s", "samples": "samples",
    "skipped": "skipped",
}  # fmt: skip

SAMPLE_COLUMNS = (
    "model", "dataset", "condition", "id", "duration", "language", "reference", "prediction", "wer",
    "reference_words", "substitutions", "deletions", "insertions", "repeated_5grams", "tokens", "avg_logprob",
    "no_speech_prob", "compression_ratio",
)  # fmt: skip


_FORMULAS = {"=", "+", "-", "@", "\t", "\r"}
"""Characters with which a spreadsheet's formula may begin."""


def cell(value: Any) -> str:
    """Return a figure as text: two decimals, both ends of an interval, a dash for what is unknown."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def p_value(value: float | None) -> str:
    """Return a p-value as text."""
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def data_set_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return every model on every data set in quiet, with totals where there are several data sets."""
    rows = [["model", "data set", *COLUMNS.values()]]
    for model, entry in results["models"].items():
        sets = {name: conditions[CLEAN.name] for name, conditions in entry["data_sets"].items()}
        if len(sets) > 1:
            sets["total"] = entry["total"][CLEAN.name]
        rows += [[model, name, *(cell(figures[key]) for key in COLUMNS)] for name, figures in sets.items()]
    return rows


def model_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return a row per model: size, averages in quiet, speed, and how it compares with the baseline."""
    rows = [[
        "model", "parameters", "WER", "95 %", "macro WER", "RTFx", "× baseline", "latency s", "90 %",
        "× baseline", "decoder s", "× baseline", "WER − baseline", "95 %", "p boot", "p pairs",
    ]]  # fmt: skip
    overall = {
        line["model"]: line
        for line in results["comparisons"]
        if line["data_set"] is None and line["condition"] == CLEAN.name
    }
    for model, entry in results["models"].items():
        total, speed, against = entry["total"][CLEAN.name], entry["speed"], overall.get(model, {})
        alone = speed["latency"] or {}
        figures = (
            total["wer"], total["wer_interval"], total["macro_wer"], speed["rtfx"], speed["relative_rtfx"],
            alone.get("median_seconds"), alone.get("p90_seconds"), alone.get("relative_latency"),
            alone.get("median_decoder_seconds"), alone.get("relative_decoder_latency"),
            against.get("difference"), against.get("difference_interval"),
        )  # fmt: skip
        tests = (p_value(against.get("p_bootstrap")), p_value(against.get("p_matched_pairs")))
        rows.append([model, f"{entry['parameters'] / 1e6:.1f} M", *map(cell, figures), *tests])
    return rows


def speculation_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return how well the assistant drafted for every model; nothing without one."""
    found = {model: entry["speed"]["speculation"] for model, entry in results["models"].items()}
    figures = ("acceptance_rate", "passes_per_token", "drafted", "accepted", "tokens", "rounds")
    rows = [[model, *(cell(counts[name]) for name in figures)] for model, counts in found.items() if counts]
    head = ["model", "acceptance", "passes/token", "drafted", "accepted", "tokens", "passes"]
    return [head, *rows] if rows else []


def noise_rows(results: dict[str, Any], evaluation: Evaluation) -> list[list[str]]:
    """Return the word error rate of every model in each noise, all data sets together."""
    conditions = [condition for condition in evaluation.config.conditions if condition.noise is not None]
    ratios = list(dict.fromkeys(condition.snr for condition in conditions))
    if not ratios:
        return []
    rows = [["model", "noise", "clean", *(f"{ratio:g} dB" for ratio in ratios)]]
    for model, entry in results["models"].items():
        for noise in dict.fromkeys(condition.noise for condition in conditions):
            names = [CLEAN.name, *(condition.name for condition in conditions if condition.noise == noise)]
            rows.append([model, str(noise), *(cell(entry["total"][name]["wer"]) for name in names)])
    return rows


def non_speech_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return every model without speech, with the share of clips of each kind with text; or nothing."""
    columns = {
        "with_text": "text %", "with_text_interval": "95 %", "with_words": "words %",
        "words_per_hour": "words/h", "repeated_5grams": "5-dup", "samples": "clips",
    }  # fmt: skip
    rows = [["model", "thresholds", *columns.values(), *KINDS]]
    for model, entry in results["models"].items():
        for name, figures in entry.get("non_speech", {}).items():
            kinds = [figures["kinds"].get(kind, {}).get("with_text") for kind in KINDS]
            cells = [*(figures[key] for key in columns), *kinds]
            rows.append([model, name.removeprefix("thresholds_"), *map(cell, cells)])
    return rows if len(rows) > 1 else []


def leaderboard_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return all models on all sets of the Open ASR Leaderboard, with its means; nothing without them."""
    columns = {
        "wer": "WER leaderboard",
        "wer_whisper": "WER",
        "rtfx": "RTFx leaderboard",
        "samples": "samples",
    }
    models = results.get(LEADERBOARD_NAME, {})
    if any("scorer_wer" in found for entry in models.values() for found in entry["sets"].values()):
        columns["scorer_wer"] = "WER scorer"
    rows = [["model", "set", *columns.values()]]
    for model, entry in models.items():
        for name, found in entry["sets"].items():
            rows.append([model, name, *(cell(found[key]) for key in columns)])
        for group, found in entry["groups"].items():
            title = f"mean of {group}" + (", not whole" if found["incomplete"] else "")
            figures = {"wer": found["mean_wer"], "rtfx": found["rtfx"]}
            rows.append([model, title, *(cell(figures.get(key)) for key in columns)])
    return rows if models else []


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows
    )


def format_tables(results: dict[str, Any], evaluation: Evaluation) -> str:
    """Return what the terminal shows."""
    several = len(results["models"]) > 1
    per_set = data_set_rows(results)
    tables = [per_set if several else [row[1:] for row in per_set]]
    if several or results["config"]["latency_samples"]:
        tables.append(model_rows(results))
    tables += [leaderboard_rows(results), speculation_rows(results), noise_rows(results, evaluation)]
    tables.append(non_speech_rows(results))
    return "\n\n".join(format_table(rows) for rows in tables if rows)


def write_samples(evaluation: Evaluation, path: Path) -> None:
    """Write a CSV row for every recording under every condition."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SAMPLE_COLUMNS)
        writer.writerows(map(_without_formulas, _sample_rows(evaluation)))


def _without_formulas(row: Iterable[Any]) -> list[Any]:
    """Return cells, of which a spreadsheet takes none for a formula: an apostrophe says that it is a text."""
    return [f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULAS else cell for cell in row]


def _sample_rows(evaluation: Evaluation) -> Iterator[Iterable[Any]]:
    units = {**evaluation.units, **evaluation.non_speech}
    for (model, name, condition), unit in units.items():
        for line, counts, repeated in zip(unit.predictions, unit.errors, unit.repeated, strict=True):
            yield (
                model, name, condition, line.id, line.duration, line.language, line.reference, line.text,
                counts.wer if counts.samples else None, counts.reference_words, counts.substitutions,
                counts.deletions, counts.insertions, repeated, line.tokens, line.avg_logprob,
                line.no_speech_prob, compression_ratio(line.text),
            )  # fmt: skip
