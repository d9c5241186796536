"""``data inspect``: the training data as a run would use it, counted and drawn, before the run."""

import dataclasses
import itertools
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.core.plotting import PLOTS_REMEDY, has_matplotlib
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.statistics import (
    DatasetStatistics,
    compute_statistics,
    merge_statistics,
    percentiles,
)
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.batches import Batch
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_data import (
    TrainingData,
    duration_limits,
    load_training_data,
    training_pipeline,
)
from flax_distil.inspection.config import InspectConfig
from flax_distil.inspection.plots import ShownSample, draw_samples, draw_statistics
from flax_distil.inspection.token_text import HEADING, token_lines
from flax_distil.inspection.token_view import view_tokens
from flax_distil.storage.output_dir import atomic_folder
from flax_distil.text.tokenizer import WhisperTokenizer

log = logging.getLogger(__name__)

REPORT = "report.json"


def run(config: InspectConfig) -> dict[str, Any]:
    """Count, print, draw, and return what report.json holds.

    Raises:
        InputError: For whatever does not fit, before the data are read.
    """
    folder = None
    if config.output.output_dir is not None:
        folder = config.output.check()
        _check_matplotlib()
    checkpoint = load_checkpoint(config.model.source, config_only=True)
    tokenizer, _ = read_tokenizer(checkpoint.files)
    window_seconds = checkpoint.config.window_seconds
    config = dataclasses.replace(config, data=config.data.within(window_seconds))
    data = load_training_data(config.data, tokenizer, window_seconds=window_seconds)
    data_sets, dropped = _collect_statistics(config, data)
    shown = first_samples(config, data, tokenizer)
    report = {
        "settings": flatten(config),
        "data_sets": {data_set.name: data_set.figures(dropped) for data_set in data_sets},
        "skipped": data.skipped.get_state(),
        "samples": [_to_json(sample) for sample in shown],
    }
    _print_report(data_sets, dropped, data.skipped, shown)
    if folder is not None:
        with atomic_folder(folder, last=[REPORT]) as stage:
            (stage / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
            draw_statistics(data_sets, dropped, stage / "statistics.png")
            draw_samples(shown, num_mel_bins=checkpoint.config.num_mel_bins, path=stage / "samples.png")
        log.info("written to %s", folder)
    return report


def _check_matplotlib() -> None:
    if not has_matplotlib():
        raise InputError(f"output_dir is given but {PLOTS_REMEDY}, or leave output_dir out to print only")


def _collect_statistics(
    config: InspectConfig, data: TrainingData
) -> tuple[list[DatasetStatistics], DropReport]:
    data_sets, reports = [], [data.dropped.get_state()]
    for source in data.sources:
        data_set, dropped = compute_statistics(
            source,
            limits=duration_limits(config.data),
            skipped=data.skipped,
            window=config.data.shuffle_buffer_size,
            max_rows=config.max_stream_samples,
        )
        data_sets.append(data_set)
        reports.append(dropped.get_state())
    return data_sets, DropReport.merge(reports)


def first_samples(
    config: InspectConfig, data: TrainingData, tokenizer: WhisperTokenizer
) -> list[ShownSample]:
    """Return the first samples that the training pipeline gives, whatever its batch size."""
    pipeline = training_pipeline(config.data, data, PipelineConfig(batch_size=1), seed=config.data.seed)
    try:
        usable = (batch for batch in pipeline if batch.valid_B[0])
        batches = [*itertools.islice(usable, config.num_shown_samples)]
    finally:
        pipeline.close()
    return [_to_sample(batch, data, tokenizer) for batch in batches]


def _to_sample(batch: Batch, data: TrainingData, tokenizer: WhisperTokenizer) -> ShownSample:
    return ShownSample(
        sample_id=batch.ids[0],
        data_set=data.sources[int(batch.source_B[0])].name,
        seconds=float(batch.duration_B[0]),
        samples_W=batch.samples_BW[0].astype(np.float32) / 32768,
        tokens=view_tokens(
            batch.decoder_input_ids_BT[0], batch.labels_BT[0], batch.loss_mask_BT[0], tokenizer
        ),
    )


def _to_json(sample: ShownSample) -> dict[str, Any]:
    return {
        "id": sample.sample_id,
        "data_set": sample.data_set,
        "seconds": sample.seconds,
        "tokens": [dataclasses.asdict(token) for token in sample.tokens],
    }


def _print_report(
    data_sets: Sequence[DatasetStatistics],
    dropped: DropReport,
    skipped: SkippedSamples,
    shown: Sequence[ShownSample],
) -> None:
    for data_set in data_sets:
        lines = _lines(data_set)
        if drops := data_set.figures(dropped)["dropped"]:
            lines.append(
                "  dropped: " + ", ".join(f"{count['rows']:,} {why}" for why, count in drops.items())
            )
        show("\n".join(lines), end="\n\n")
    if len(data_sets) > 1:
        show("\n".join(_lines(merge_statistics(data_sets))), end="\n\n")
    if skipped:
        show(skipped.report(), end="\n\n")
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((110, 24)).columns
    for sample in shown:
        show(f"\n{sample.title}")
        show("\n".join([HEADING, *token_lines(sample.tokens, width=width, color=terminal)]))


def _lines(data_set: DatasetStatistics) -> list[str]:
    """Return what is known of a data set, to print."""
    speakers = (
        f"{len(data_set.speaker_seconds):,} speakers" if data_set.speaker_seconds else "speakers unknown"
    )
    lines = [
        f"{data_set.name}: {data_set.hours:,.2f} hours, {len(data_set.row_seconds):,} rows kept, {speakers}"
        + ("" if data_set.complete else " (the stream goes on)"),
        f"  {len(data_set.sample_seconds):,} samples, {data_set.fill:.1%} of their 30 s filled",
        f"  {'':24}{'min':>8}{'median':>8}{'mean':>8}{'95 %':>8}{'max':>8}",
    ]
    for title, values, digits in (
        ("seconds of rows", data_set.row_seconds, 2),
        ("seconds of samples", data_set.sample_seconds, 2),
        ("tokens of labels", data_set.label_lengths, 0),
    ):
        figures = percentiles(values) or {}
        lines.append(f"  {title:24}" + "".join(f"{figure:8.{digits}f}" for figure in figures.values()))
    encodings = ", ".join(f"{kind} ({count})" for kind, count in data_set.encodings.most_common(6))
    return [*lines, f"  recordings: {encodings}"]
