"""``report.html``: one page that loads nothing: tables, pictures, the worst recordings word by word."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flax_distil.core.plotting import PLOTS_REMEDY, has_matplotlib
from flax_distil.evaluation.config import CLEAN
from flax_distil.evaluation.report import html
from flax_distil.evaluation.report.plots import Rate, checkpoint_plot, data_set_plot, latency_plot, noise_plot
from flax_distil.evaluation.report.tables import (
    cell,
    data_set_rows,
    leaderboard_rows,
    model_rows,
    noise_rows,
    non_speech_rows,
    p_value,
    speculation_rows,
)
from flax_distil.evaluation.results import Evaluation
from flax_distil.evaluation.scores import ScoredRecords
from flax_distil.metrics.word_diff import word_diff

log = logging.getLogger(__name__)

WORST = 10
"""Recordings of each model that are shown word by word."""

SKIPPED_SHOWN = 50


def write_report(evaluation: Evaluation, results: dict[str, Any], path: Path) -> None:
    """Write the page; without matplotlib, without pictures.

    Args:
        evaluation: What was transcribed.
        results: Its figures.
        path: A file to write.
    """
    plots = has_matplotlib()
    if not plots:
        log.warning("the report has no pictures: %s", PLOTS_REMEDY)
    models = ", ".join(results["models"])
    sections = [
        html.note(_introduction(evaluation, results)),
        *([] if plots else [html.note(f"There are no pictures: {PLOTS_REMEDY}.")]),
        _models(results, plots=plots),
        _data_sets(results, plots=plots),
        _leaderboard(results),
        _noise(evaluation, results, plots=plots),
        _non_speech(results),
        _comparisons(results),
        *(_worst(evaluation, model) for model in evaluation.models),
        _skipped(results),
        html.section("Settings", html.details("as JSON", json.dumps(results["config"], indent=2))),
    ]
    path.write_text(html.page(f"Evaluation of {models}", filter(None, sections)), encoding="utf-8")


def _introduction(evaluation: Evaluation, results: dict[str, Any]) -> str:
    first = next(iter(results["models"].values()))["total"][CLEAN.name]
    hours = first["audio_seconds"] / 3600
    return (
        f"{first['samples']:,} recordings ({hours:.2f} h) of {', '.join(evaluation.data_sets)}; mode "
        f"{evaluation.config.mode}; texts normalized by {evaluation.normalize.description}. "
        f"Rates are percentages of reference words. Intervals hold {results['confidence']:.0%} of "
        f"{results['resamples']:,} draws of recordings."
    )


def _models(results: dict[str, Any], *, plots: bool) -> str:
    speeds = {model: entry["speed"] for model, entry in results["models"].items()}
    parts = [html.table(model_rows(results))]
    alone = all(speed["latency"] is not None for speed in speeds.values())
    devices = sorted({device for speed in speeds.values() for device in speed["devices"]})
    batch = sorted({size for speed in speeds.values() for size in speed["batch_size"]})
    text = (
        f"Compared with {results['baseline']}. RTFx: seconds of speech per second, batches of "
        f"{' or '.join(map(str, batch))} windows on {' or '.join(devices)}, compiling left out. "
    )
    text += (
        "Latency: seconds of a recording transcribed alone, median and 90th percentile, and the median of "
        "what follows the encoder; × baseline above 1 is faster."
        if alone
        else "Latency was not measured (latency_samples)."
    )
    parts.append(html.note(text))
    if drafting := speculation_rows(results):
        assistant = results["config"]["assistant_model_name_or_path"]
        parts += [html.note(f"Drafts of {assistant}:"), html.table(drafting)]
    points = {}
    for model, entry in results["models"].items():
        rate, speed = Rate.of(entry["total"][CLEAN.name]), entry["speed"]
        seconds = speed["latency"]["median_seconds"] if alone else speed["rtfx"] and 1 / speed["rtfx"]
        if rate is not None and seconds:
            points[model] = (seconds, rate)
    if plots and (numbered := _by_checkpoint(results)):
        parts.append(html.picture(checkpoint_plot(numbered), "Word error rate over checkpoints"))
    if plots and points:
        xlabel = "latency of one recording, seconds (median)" if alone else "seconds per second of speech"
        parts.append(html.picture(latency_plot(points, xlabel=xlabel), "Word error rate against time"))
    return html.section("Models", *parts)


def _by_checkpoint(results: dict[str, Any]) -> dict[float, Rate]:
    """Return the rates of models whose names differ by their last number alone; nothing for fewer than 3."""
    found: dict[str, dict[float, Rate]] = {}
    for model, entry in results["models"].items():
        name, rate = re.fullmatch(r"(.*?)(\d+)", model), Rate.of(entry["total"][CLEAN.name])
        if name is not None and rate is not None:
            found.setdefault(name[1], {})[float(name[2])] = rate
    largest = max(found.values(), key=len, default={})
    return largest if len(largest) >= 3 else {}


def _data_sets(results: dict[str, Any], *, plots: bool) -> str:
    rates = {}
    for model, entry in results["models"].items():
        rates[model] = {name: Rate.of(sets[CLEAN.name]) for name, sets in entry["data_sets"].items()}
        if len(rates[model]) > 1:
            rates[model]["total"] = Rate.of(entry["total"][CLEAN.name])
    parts = [html.table(data_set_rows(results), texts=2)]
    if plots:
        parts.append(html.picture(data_set_plot(rates), "Word error rate by data set"))
    return html.section("Data sets", *parts)


def _leaderboard(results: dict[str, Any]) -> str | None:
    rows = leaderboard_rows(results)
    if not rows:
        return None
    return html.section(
        "Open ASR Leaderboard",
        html.table(rows, texts=2),
        html.note(
            "WER leaderboard and RTFx leaderboard follow its protocol, WER this program's own. Its means are "
            "over sets, whatever their sizes; its RTFx is over all audio, from samples in memory to text."
        ),
    )


def _noise(evaluation: Evaluation, results: dict[str, Any], *, plots: bool) -> str | None:
    rows = noise_rows(results, evaluation)
    if not rows:
        return None
    conditions = [condition for condition in evaluation.config.conditions if condition.noise is not None]
    totals = {model: entry["total"] for model, entry in results["models"].items()}
    curves: dict[str, dict[str, Sequence[tuple[float, Rate | None]]]] = {
        str(noise): {
            model: [
                (float(condition.snr or 0.0), Rate.of(total[condition.name]))
                for condition in conditions
                if condition.noise == noise
            ]
            for model, total in totals.items()
        }
        for noise in dict.fromkeys(condition.noise for condition in conditions)
    }
    clean = {model: Rate.of(total[CLEAN.name]) for model, total in totals.items()}
    parts = [html.table(rows, texts=2)]
    if plots:
        parts.append(html.picture(noise_plot(curves, clean), "Word error rate against signal-to-noise ratio"))
    return html.section("Noise", *parts)


def _non_speech(results: dict[str, Any]) -> str | None:
    rows = non_speech_rows(results)
    if not rows:
        return None
    texts = [
        [model, name.removeprefix("thresholds_"), text, str(count)]
        for model, entry in results["models"].items()
        for name, figures in entry["non_speech"].items()
        for text, count in figures["texts"].items()
    ]
    head = ["model", "thresholds", "most frequent texts", "clips"]
    return html.section(
        "Without speech",
        html.table(rows, texts=2),
        html.note(
            "Nobody speaks in these clips, so every text is invented. text %: clips with any text; words %: "
            "clips with a word after normalization; below a kind of sound: those of its clips with any text, "
            "in percent."
        ),
        html.table([head, *texts], texts=3) if texts else "",
    )


def _comparisons(results: dict[str, Any]) -> str | None:
    rows = [
        [
            line["model"], line["data_set"] or "all", line["condition"], cell(line["difference"]),
            cell(line["difference_interval"]), p_value(line["p_bootstrap"]), p_value(line["p_matched_pairs"]),
            str(line["recordings"]),
        ]
        for line in results["comparisons"]
    ]  # fmt: skip
    if not rows:
        return None
    head = ["model", "data set", "condition", "difference", "95 %", "p bootstrap", "p matched pairs",
            "recordings"]  # fmt: skip
    return html.section(
        f"Word error rate against {results['baseline']}",
        html.table([head, *rows], texts=3),
        html.note(
            "Differences in percentage points, above 0 is worse than the baseline; both tests are paired by "
            "recording and two-sided. Of many rows, one in twenty has p below 0.05 by luck."
        ),
    )


def _worst(evaluation: Evaluation, model: str) -> str | None:
    ranked = sorted(_scored(evaluation, model), key=lambda item: (-item[0], item[1:]))[:WORST]
    shown = [_sample(evaluation, model, name, row) for errors, name, row in ranked if errors]
    if not shown:
        return None
    return html.section(f"Most errors of {model}", html.DIFF_LEGEND, *shown)


def _scored(evaluation: Evaluation, model: str) -> Iterator[tuple[int, str, int]]:
    """Yield errors, data set and row of every recording that has a reference."""
    for name in evaluation.data_sets:
        for row, (errors, _) in evaluation.units[model, name, CLEAN.name].counts.items():
            yield errors, name, row


def _sample(evaluation: Evaluation, model: str, name: str, row: int) -> str:
    compared = [model, *({evaluation.config.baseline} - {model})]
    units = [evaluation.units[other, name, CLEAN.name] for other in compared]
    lines = [_model_diff(other, unit, row) for other, unit in zip(compared, units, strict=True)]
    (sample,) = (line for line in units[0].predictions if line.index == row)
    title = html.note(f"{name}: {sample.id}, {sample.duration:.1f} s")
    return "\n".join(['<div class="sample">', title, *filter(None, lines), "</div>"])


def _model_diff(model: str, unit: ScoredRecords, row: int) -> str | None:
    found = [line for line in unit.predictions if line.index == row]
    if not found:
        return None
    errors, words = unit.counts[row]
    parts = word_diff(found[0].reference, found[0].text, unit.normalize)
    return html.note(
        f"{model}: {html.counted(errors, 'error')} in {html.counted(words, 'word')}"
    ) + html.diff(parts)


def _skipped(results: dict[str, Any]) -> str | None:
    entry = next(iter(results["models"].values()))
    rows: list[Sequence[str]] = [
        [name, sample_id, reason]
        for name, conditions in entry["data_sets"].items()
        for sample_id, reason in conditions[CLEAN.name]["skipped_samples"].items()
    ]
    if not rows:
        return None
    left = html.note(f"and {len(rows) - SKIPPED_SHOWN:,} more") if len(rows) > SKIPPED_SHOWN else ""
    head = ["data set", "recording", "why"]
    return html.section("Skipped recordings", html.table([head, *rows[:SKIPPED_SHOWN]], texts=3), left)
