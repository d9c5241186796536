"""Short-form evaluation: word errors and speed of a model on one or several data sets."""

import csv
import dataclasses
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flax_distil.core import InputError
from flax_distil.data import EvaluationPipeline, PipelineConfig, SkippedSamples, SpeechData, load_sources
from flax_distil.metrics import ErrorCounts, Throughput, compression_ratio, sample_wer, word_errors
from flax_distil.text import orthographic
from flax_distil.transcription import ShortFormTranscriber
from flax_distil.workflows.output_folder import check_output_dir, staged_folder
from flax_distil.workflows.speech_job import (
    DatasetJobConfig,
    SpeechModel,
    TranscribedSample,
    transcribe_batches,
)

log = logging.getLogger(__name__)

RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(DatasetJobConfig):
    """Measure a Whisper checkpoint on data sets of recordings of at most 30 s.

    Attributes:
        text_column_name: Column of reference texts; joined by + for several data sets.

    Raises:
        InputError: if a value is out of range.
    """

    text_column_name: str = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetEvaluation:
    """Figures of one data set; rates are in percent.

    Attributes:
        errors: under the normaliser of the language.
        orthographic_errors: with casing and punctuation.
        throughput: audio, tokens and seconds; reading of audio counts, compilation does not.
        skipped: recordings that could not be read.
    """

    errors: ErrorCounts
    orthographic_errors: ErrorCounts
    throughput: Throughput
    skipped: SkippedSamples

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return self.errors.wer

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of computing."""
        return self.throughput.rtfx

    def figures(self) -> dict[str, float]:
        """Return everything that is reported, by name."""
        return {
            "wer": self.errors.wer,
            "wer_ortho": self.orthographic_errors.wer,
            "cer": self.errors.cer,
            "insertion_rate": self.errors.insertion_rate,
            "deletion_rate": self.errors.deletion_rate,
            "substitution_rate": self.errors.substitution_rate,
            "rtfx": self.throughput.rtfx,
            "tokens_per_second": self.throughput.tokens_per_second,
            "samples": self.throughput.samples,
            "skipped": len(self.skipped),
            "without_reference": self.errors.skipped,
            "audio_seconds": self.throughput.audio_seconds,
            "compute_seconds": self.throughput.compute_seconds,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        model: the checkpoint as it was named.
        parameters: numbers in its weights.
        compile_seconds: time spent compiling, once for all data sets.
        datasets: figures by name of the data set, in the order given.
    """

    model: str
    parameters: int
    compile_seconds: float
    datasets: dict[str, DatasetEvaluation]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON takes it: what is not a number is null."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "compile_seconds": self.compile_seconds,
            "datasets": {
                name: {
                    key: value if math.isfinite(value) else None for key, value in result.figures().items()
                }
                for name, result in self.datasets.items()
            },
        }

    def report(self) -> str:
        """Return a table with one line per data set."""
        columns = {
            "WER %": "wer", "ortho %": "wer_ortho", "CER %": "cer", "ins %": "insertion_rate",
            "del %": "deletion_rate", "sub %": "substitution_rate", "RTFx": "rtfx",
            "tokens/s": "tokens_per_second", "samples": "samples", "skipped": "skipped",
        }  # fmt: skip
        rows = [["data set", *columns]]
        for name, result in self.datasets.items():
            figures = result.figures()
            values = [figures[key] for key in columns.values()]
            rows.append([name, *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values)])
        title = f"{self.model}: {self.parameters / 1e6:.1f} M parameters, compiled in {self.compile_seconds:.1f} s"
        return f"{title}\n{_aligned(rows)}"


def run_evaluation(config: EvalConfig) -> EvaluationResult:
    """Transcribe data sets, compare with the references, and write figures and predictions.

    Raises:
        InputError: if model, data or flags do not fit, or a recording is longer than 30 s;
            nothing is written then.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    model = SpeechModel(config)
    sources = load_sources(
        config.dataset_name,
        config_name=config.dataset_config_name,
        split=config.dataset_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        max_samples=config.max_samples,
        cache_dir=config.dataset_cache_dir,
    )
    batch_size = model.batch_size(max(map(len, sources)))
    settings = PipelineConfig(batch_size=batch_size, num_threads=config.dataloader_num_workers)
    # All are made before the weights are read: they know of recordings that are too long.
    pipelines = {
        name: EvaluationPipeline(data, settings)
        for name, data in zip(_distinct_names(sources), sources, strict=True)
    }
    transcriber = model.load()
    compile_seconds = transcriber.warm_up(batch_size)
    log.info("compiled in %.1f s", compile_seconds)
    datasets: dict[str, DatasetEvaluation] = {}
    rows: list[dict[str, Any]] = []
    for name, pipeline in pipelines.items():
        datasets[name], samples = _evaluate(name, pipeline, transcriber, model)
        rows += [{"dataset": name, **_row(sample, model)} for sample in samples]
    result = EvaluationResult(
        model=config.model_name_or_path,
        parameters=model.parameters,
        compile_seconds=compile_seconds,
        datasets=datasets,
    )
    with staged_folder(folder) as stage:
        (stage / RESULTS_NAME).write_text(json.dumps(result.to_json(), indent=2) + "\n")
        _write_rows(stage / PREDICTIONS_NAME, rows)
    return result


def _evaluate(
    name: str, pipeline: EvaluationPipeline, transcriber: ShortFormTranscriber, model: SpeechModel
) -> tuple[DatasetEvaluation, list[TranscribedSample]]:
    start = time.perf_counter()
    samples: list[TranscribedSample] = []
    with tqdm(total=pipeline.num_samples, desc=name, unit="sample", disable=None) as bar:
        for collected in transcribe_batches(transcriber, pipeline):
            samples += collected
            bar.update(len(collected))
    seconds = time.perf_counter() - start
    if pipeline.skipped:
        log.warning("%s: %s", name, pipeline.skipped.report())
    if not samples:
        raise InputError(f"data set {name!r} has no recording that can be read: see the reasons above")
    references = [sample.reference for sample in samples]
    predictions = [sample.transcript.text for sample in samples]
    result = DatasetEvaluation(
        errors=word_errors(references, predictions, model.normalise),
        orthographic_errors=word_errors(references, predictions, orthographic),
        throughput=throughput_of(samples, seconds),
        skipped=pipeline.skipped,
    )
    return result, samples


def throughput_of(samples: Sequence[TranscribedSample], seconds: float) -> Throughput:
    """Return the work that transcribing these samples in so many seconds was."""
    return Throughput(
        audio_seconds=sum(sample.duration_seconds for sample in samples),
        compute_seconds=seconds,
        tokens=sum(len(sample.transcript.tokens) for sample in samples),
        samples=len(samples),
    )


def _distinct_names(sources: Sequence[SpeechData]) -> list[str]:
    """Number data sets whose names end alike: ``test``, ``test-2``."""
    names: list[str] = []
    for source in sources:
        name, number = source.name, 1
        while name in names:
            number += 1
            name = f"{source.name}-{number}"
        names.append(name)
    return names


def _row(sample: TranscribedSample, model: SpeechModel) -> dict[str, Any]:
    transcript = sample.transcript
    return {
        "id": sample.sample_id,
        "reference": sample.reference,
        "prediction": transcript.text,
        "wer": sample_wer(sample.reference, transcript.text, model.normalise),
        "avg_logprob": transcript.avg_logprob,
        "no_speech_prob": transcript.no_speech_prob,
        "compression_ratio": compression_ratio(transcript.text),
        "duration": sample.duration_seconds,
        "language": transcript.language,
    }


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, the first to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
