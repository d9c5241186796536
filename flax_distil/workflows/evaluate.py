"""Short-form evaluation: word errors and speed of a checkpoint on one or more data sets."""

import csv
import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from flax_distil.data import load_sources
from flax_distil.metrics import Throughput, compression_ratio, repeated_ngrams, sample_wer, word_errors
from flax_distil.parallel import together
from flax_distil.text import Normaliser, orthographic
from flax_distil.workflows.batch_transcription import BatchTranscriber, TranscribedSet
from flax_distil.workflows.outputs import check_output_dir, staged
from flax_distil.workflows.transcription_config import DatasetTranscriptionConfig

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(DatasetTranscriptionConfig):
    """Measure the word error rate and the speed of a checkpoint.

    Attributes:
        text_column_name: Column of reference texts; joined by + for several data sets.
        output_dir: Folder of results.json and predictions.csv; by default only the table is shown.
        overwrite_output_dir: Replace the reports of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range.
    """

    text_column_name: str = "text"
    output_dir: str | None = None
    overwrite_output_dir: bool = False


Figures = dict[str, Any]


def run_evaluation(config: EvalConfig) -> dict[str, Figures]:
    """Evaluate, print a table, write the reports and return the figures by data set.

    Several data sets have a total too, over all their samples together: the last row of the table,
    and ``total`` in results.json.

    Rates are percentages: ``wer``, ``wer_ortho``, ``cer``, ``insertion_rate``, ``deletion_rate``,
    ``substitution_rate``; ``repeated_5grams`` are per recording; speeds leave ``compile_seconds``
    out: ``rtfx``, ``tokens_per_second``.

    Raises:
        InputError: for whatever does not fit, before the model is loaded.
    """
    runner = config.make_runner()
    leads = jax.process_index() == 0
    folder = together(
        lambda: (
            check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
            if leads and config.output_dir is not None
            else None
        )
    )
    model = together(lambda: BatchTranscriber(config, runner))
    if model.is_multilingual and config.language is None:
        log.warning("language is not given: it is detected, and scored by the rules for any language")
    sets = together(
        lambda: load_sources(config.dataset_name, **config.source_options(config.text_column_name))
    )
    results: dict[str, Figures] = {}
    transcribed: list[TranscribedSet] = []
    samples: list[list[Any]] = []
    for number, data in enumerate(sets, 1):
        name = data.name if data.name not in results else f"{data.name}-{number}"
        result = model.transcribe(data, num_workers=config.dataloader_num_workers)
        skipped = {sample.sample_id: sample.reason for sample in result.skipped.samples()}
        results[name] = _figures([result], model) | {"skipped_samples": skipped}
        transcribed.append(result)
        samples += _sample_rows(name, result, model.normalise)
    total = _figures(transcribed, model) if len(transcribed) > 1 else None
    if not leads:
        return results
    print(format_table(results, total))
    for result in transcribed:
        if result.skipped:
            log.warning("%s", result.skipped.report())
    if folder is not None:
        document = {"config": dataclasses.asdict(config), "results": results}
        document |= {} if total is None else {"total": total}
        with staged(folder) as scratch:
            _write_reports(scratch, document, samples)
    return results


def _figures(results: Sequence[TranscribedSet], model: BatchTranscriber) -> Figures:
    """Return the figures over the samples of all data sets together."""
    references = [reference for result in results for reference in result.references]
    texts = [transcript.text for result in results for transcript in result.transcripts]
    throughput = sum((result.throughput for result in results), Throughput())
    normalise = model.normalise
    errors = word_errors(references, texts, normalise)
    written = word_errors(references, texts, orthographic)
    figures = {
        "wer": errors.wer,
        "wer_ortho": written.wer,
        "cer": errors.cer,
        "insertion_rate": errors.insertion_rate,
        "deletion_rate": errors.deletion_rate,
        "substitution_rate": errors.substitution_rate,
        "repeated_5grams": sum(repeated_ngrams(normalise(text)) for text in texts) / len(texts),
        "rtfx": throughput.rtfx,
        "tokens_per_second": throughput.tokens_per_second,
        "audio_seconds": throughput.audio_seconds,
        "compute_seconds": throughput.compute_seconds,
        "compile_seconds": throughput.compile_seconds,
    }
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return finite | {
        "samples": len(texts),
        "empty_references": errors.skipped,
        "skipped": sum(len(result.skipped) for result in results),
        "parameters": model.parameters,
    }


_SAMPLE_COLUMNS = (
    "dataset", "id", "reference", "prediction", "wer", "avg_logprob", "no_speech_prob",
    "compression_ratio", "duration",
)  # fmt: skip


def _sample_rows(name: str, result: TranscribedSet, normalise: Normaliser) -> list[list[Any]]:
    return [
        [
            name,
            sample_id,
            reference,
            transcript.text,
            sample_wer(reference, transcript.text, normalise),
            transcript.avg_logprob,
            transcript.no_speech_prob,
            compression_ratio(transcript.text),
            seconds,
        ]
        for sample_id, reference, seconds, transcript in zip(
            result.ids, result.references, result.durations, result.transcripts, strict=True
        )
    ]


def _write_reports(folder: Path, document: dict[str, Any], samples: list[list[Any]]) -> None:
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_SAMPLE_COLUMNS)
        writer.writerows(samples)


def format_table(results: dict[str, Figures], total: Figures | None = None) -> str:
    """Return the figures as an aligned table: a row per data set, then one for all if it is given."""
    columns = {
        "wer": "WER", "wer_ortho": "WER ortho", "cer": "CER", "insertion_rate": "ins",
        "deletion_rate": "del", "substitution_rate": "sub", "rtfx": "RTFx",
        "tokens_per_second": "tokens/s", "compile_seconds": "compile s", "samples": "samples",
        "skipped": "skipped",
    }  # fmt: skip
    rows = [["data set", *columns.values()]]
    for name, figures in [*results.items(), *([] if total is None else [("total", total)])]:
        cells = [figures[key] for key in columns]
        rows.append(
            [name, *("-" if c is None else f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells)]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
