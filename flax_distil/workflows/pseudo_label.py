"""Pseudo-labelling: the teacher's transcripts, and what tells good ones from bad, beside the recordings."""

import dataclasses
import json
import logging
import time
from typing import Any

from tqdm import tqdm

from flax_distil.core import InputError
from flax_distil.data import (
    DURATION_COLUMN,
    PSEUDO_LABEL_COLUMN,
    EvaluationPipeline,
    PipelineConfig,
    SkippedSamples,
    SpeechData,
    load_source,
)
from flax_distil.metrics import ErrorCounts, Throughput, compression_ratio, sample_wer, word_errors
from flax_distil.workflows.evaluate import throughput_of
from flax_distil.workflows.output_folder import check_output_dir, staged_folder
from flax_distil.workflows.speech_job import (
    DatasetJobConfig,
    SpeechModel,
    TranscribedSample,
    transcribe_batches,
)

log = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"
DEFAULT_TEXT_COLUMN = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(DatasetJobConfig):
    """Transcribe a data set with a Whisper teacher, to train students on.

    Attributes:
        text_column_name: Column of reference texts; by default text where the data set has one.
            References are not needed, but give each sample a word error rate to filter by.

    Raises:
        InputError: if a value is out of range.
    """

    text_column_name: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelResult:
    """What pseudo-labelling did.

    Attributes:
        data: the rows written.
        errors: against the references, where there are any.
        throughput: audio, tokens and seconds, compilation apart.
        skipped: recordings that were too long or could not be read.
    """

    data: SpeechData
    errors: ErrorCounts
    throughput: Throughput
    skipped: SkippedSamples

    def to_json(self) -> dict[str, Any]:
        """Return the summary as it is written beside the data."""
        return {
            "samples": self.throughput.samples,
            "skipped": self.skipped.counts(),
            "skipped_samples": {sample.sample_id: sample.reason for sample in self.skipped.samples()},
            "wer": self.errors.wer if self.errors.samples else None,
            "rtfx": self.throughput.rtfx,
            "audio_seconds": self.throughput.audio_seconds,
            "compute_seconds": self.throughput.compute_seconds,
            "compile_seconds": self.throughput.compile_seconds,
        }

    def report(self) -> str:
        """Return what to tell the user."""
        wer = f", WER {self.errors.wer:.2f} % against the references" if self.errors.samples else ""
        return (
            f"pseudo-labelled {self.throughput.samples} samples ({len(self.skipped)} skipped): "
            f"RTFx {self.throughput.rtfx:.1f}, compiled in {self.throughput.compile_seconds:.1f} s{wer}"
        )


def run_pseudo_labelling(config: PseudoLabelConfig) -> PseudoLabelResult:
    """Transcribe a data set and save it with the transcripts.

    Recordings that are too long or cannot be read are left out, counted and listed.

    Raises:
        InputError: if model, data or flags do not fit, or no recording can be read; nothing is
            written then.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    model = SpeechModel(config)
    if model.is_multilingual and config.language is None:
        raise InputError(
            f"language is missing: {config.model_name_or_path!r} is multilingual, and pseudo-labels must "
            "be in one language; give one, such as en"
        )
    data = _load_data(config)
    batch_size = model.batch_size(len(data))
    pipeline = EvaluationPipeline(
        data,
        PipelineConfig(batch_size=batch_size, num_threads=config.dataloader_num_workers),
        too_long="skip",
    )
    transcriber = model.load()
    compile_seconds = transcriber.warm_up(batch_size)
    start = time.perf_counter()
    samples: list[TranscribedSample] = []
    with tqdm(total=pipeline.num_samples, desc=data.name, unit="sample", disable=None) as bar:
        for collected in transcribe_batches(transcriber, pipeline):
            samples += collected
            bar.update(len(collected))
    seconds = time.perf_counter() - start
    if pipeline.skipped:
        log.warning("%s", pipeline.skipped.report())
    if not samples:
        raise InputError(
            f"data set {data.name!r} has no recording that can be labelled: see the reasons above"
        )
    result = PseudoLabelResult(
        data=_labelled(data, samples, model),
        errors=_errors(samples, model),
        throughput=throughput_of(samples, seconds) + Throughput(compile_seconds=compile_seconds),
        skipped=pipeline.skipped,
    )
    with staged_folder(folder, stale=("data-*.arrow",)) as stage:
        result.data.save(stage)
        (stage / SUMMARY_NAME).write_text(json.dumps(result.to_json(), indent=2) + "\n")
    return result


def _load_data(config: PseudoLabelConfig) -> SpeechData:
    data = load_source(
        config.dataset_name,
        config_name=config.dataset_config_name,
        split=config.dataset_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        max_samples=config.max_samples,
        cache_dir=config.dataset_cache_dir,
    )
    if config.text_column_name is None and data.has_column(DEFAULT_TEXT_COLUMN):
        return dataclasses.replace(data, text_column=DEFAULT_TEXT_COLUMN)
    return data


def _labelled(data: SpeechData, samples: list[TranscribedSample], model: SpeechModel) -> SpeechData:
    """Return the rows that were transcribed, with what the teacher said of them."""
    transcripts = [sample.transcript for sample in samples]
    columns: dict[str, list[Any]] = {
        # With timestamps where they were asked for: distillation may train on them.
        PSEUDO_LABEL_COLUMN: [each.text_with_timestamps or each.text for each in transcripts],
        "avg_logprob": [each.avg_logprob for each in transcripts],
        "no_speech_prob": [each.no_speech_prob for each in transcripts],
        "compression_ratio": [compression_ratio(each.text) for each in transcripts],
        DURATION_COLUMN: [sample.duration_seconds for sample in samples],
    }
    if data.text_column is not None:
        columns["wer"] = [
            sample_wer(sample.reference, sample.transcript.text, model.normalise) for sample in samples
        ]
    return data.select([sample.index for sample in samples]).with_columns(columns)


def _errors(samples: list[TranscribedSample], model: SpeechModel) -> ErrorCounts:
    return word_errors(
        [sample.reference for sample in samples],
        [sample.transcript.text for sample in samples],
        model.normalise,
    )
