"""Short-form evaluation: word errors and speed of a checkpoint on one or more data sets."""

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from flax_distil.core import InputError
from flax_distil.data import load_sources
from flax_distil.metrics import sample_wer, word_errors
from flax_distil.text import normaliser, orthographic
from flax_distil.transcription import TranscriptionOptions
from flax_distil.workflows.batch_transcription import BatchTranscriber, TranscribedSet
from flax_distil.workflows.outputs import check_output_dir, staged


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measure the word error rate and the speed of a checkpoint.

    Attributes:
        model_name_or_path: Checkpoint, a folder or Hub id.
        dataset_name: Hub id, save_to_disk folder, audio folder, Parquet or JSONL file; several joined by +.
        dataset_config_name: Configuration of the data sets.
        dataset_split_name: Split of the data sets.
        audio_column_name: Column of recordings.
        text_column_name: Column of reference texts.
        language: Language of the speech, name or code; by default detected per sample.
        task: transcribe or translate.
        return_timestamps: Generate with timestamps.
        per_device_eval_batch_size: Samples per device.
        generation_max_length: Most tokens per sample; by default all the model's positions.
        dtype: float32, bfloat16 or float16.
        dataloader_num_workers: Threads that decode audio; by default the machine's cores.
        max_samples: Use only this many samples of each data set.
        output_dir: Folder of results.json and predictions.csv; by default only the table is shown.
        overwrite_output_dir: Replace a folder that is not empty.
    """

    model_name_or_path: str
    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    audio_column_name: str = "audio"
    text_column_name: str = "text"
    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    per_device_eval_batch_size: int = 16
    generation_max_length: int | None = None
    dtype: str = "float32"
    dataloader_num_workers: int | None = None
    max_samples: int | None = None
    output_dir: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        if self.per_device_eval_batch_size < 1:
            raise InputError(f"per_device_eval_batch_size {self.per_device_eval_batch_size} is below 1")
        _ = self.options

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return TranscriptionOptions(
            language=self.language,
            task=self.task,
            return_timestamps=self.return_timestamps,
            max_new_tokens=self.generation_max_length,
        )


Figures = dict[str, Any]


def run_evaluation(config: EvalConfig) -> dict[str, Figures]:
    """Evaluate, print a table, write the reports and return the figures by data set.

    Rates are percentages: ``wer``, ``wer_ortho``, ``cer``, ``insertion_rate``, ``deletion_rate``,
    ``substitution_rate``; speeds leave ``compile_seconds`` out: ``rtfx``, ``tokens_per_second``.

    Raises:
        InputError: for whatever does not fit, before the model is loaded.
    """
    folder = None
    if config.output_dir is not None:
        folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    sets = load_sources(
        config.dataset_name,
        config_name=config.dataset_config_name,
        split=config.dataset_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        max_samples=config.max_samples,
    )
    model = BatchTranscriber(
        config.model_name_or_path,
        options=config.options,
        dtype=config.dtype,
        per_device_batch_size=config.per_device_eval_batch_size,
        num_workers=config.dataloader_num_workers,
    )
    spoken = config.options.language or (None if model.tokenizer.special.is_multilingual else "en")
    normalise = normaliser(spoken if config.task == "transcribe" else "en")
    results: dict[str, Figures] = {}
    samples: list[list[Any]] = []
    for number, data in enumerate(sets):
        name = data.name if data.name not in results else f"{data.name}-{number + 1}"
        result = model.transcribe(data)
        results[name] = _figures(result, normalise) | {"parameters": model.parameters}
        samples += _sample_rows(name, result, normalise)
        if result.skipped:
            print(result.skipped.report())
    print(format_table(results))
    if folder is not None:
        with staged(folder) as scratch:
            _write_reports(scratch, config, results, samples)
    return results


def _figures(result: TranscribedSet, normalise: Any) -> Figures:
    texts = [transcript.text for transcript in result.transcripts]
    errors = word_errors(result.references, texts, normalise)
    written = word_errors(result.references, texts, orthographic)
    figures = {
        "wer": errors.wer,
        "wer_ortho": written.wer,
        "cer": errors.cer,
        "insertion_rate": errors.insertion_rate,
        "deletion_rate": errors.deletion_rate,
        "substitution_rate": errors.substitution_rate,
        "rtfx": result.throughput.rtfx,
        "tokens_per_second": result.throughput.tokens_per_second,
        "audio_seconds": result.throughput.audio_seconds,
        "compute_seconds": result.throughput.compute_seconds,
        "compile_seconds": result.throughput.compile_seconds,
    }
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return finite | {
        "samples": len(result.rows),
        "empty_references": errors.skipped,
        "skipped": len(result.skipped),
    }


_SAMPLE_COLUMNS = (
    "dataset", "id", "reference", "prediction", "wer", "avg_logprob", "no_speech_prob", "duration",
)  # fmt: skip


def _sample_rows(name: str, result: TranscribedSet, normalise: Any) -> list[list[Any]]:
    return [
        [
            name,
            sample_id,
            reference,
            transcript.text,
            sample_wer(reference, transcript.text, normalise),
            transcript.avg_logprob,
            transcript.no_speech_prob,
            seconds,
        ]
        for sample_id, reference, seconds, transcript in zip(
            result.ids, result.references, result.durations, result.transcripts, strict=True
        )
    ]


def _write_reports(
    folder: Path, config: EvalConfig, results: dict[str, Figures], samples: list[list[Any]]
) -> None:
    document = {"config": dataclasses.asdict(config), "results": results}
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_SAMPLE_COLUMNS)
        writer.writerows(samples)


def format_table(results: dict[str, Figures]) -> str:
    """Return the figures as an aligned table, a row per data set."""
    columns = {
        "wer": "WER", "wer_ortho": "WER ortho", "cer": "CER", "insertion_rate": "ins",
        "deletion_rate": "del", "substitution_rate": "sub", "rtfx": "RTFx",
        "tokens_per_second": "tokens/s", "compile_seconds": "compile s", "samples": "samples",
    }  # fmt: skip
    rows = [["data set", *columns.values()]]
    for name, figures in results.items():
        cells = [figures[key] for key in columns]
        rows.append(
            [name, *("-" if c is None else f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells)]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
