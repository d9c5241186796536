"""The teacher transcribes a corpus; the result is a data set with its transcripts and confidences."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax

from flax_distil.core import InputError
from flax_distil.data import DURATION_COLUMN, PSEUDO_LABEL_COLUMN, SpeechData, load_source
from flax_distil.metrics import compression_ratio, sample_wer, word_errors
from flax_distil.parallel import together
from flax_distil.text import Normaliser
from flax_distil.workflows.batch_transcription import BatchTranscriber, TranscribedSet
from flax_distil.workflows.outputs import check_output_dir, staged
from flax_distil.workflows.transcription_config import DatasetTranscriptionConfig

log = logging.getLogger(__name__)


SUMMARY_NAME = "summary.json"
DEFAULT_TEXT_COLUMN = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(DatasetTranscriptionConfig):
    """Transcribe a data set with a teacher and write it back with the transcripts.

    Attributes:
        language: Language of the speech, name or code; needed by multilingual teachers.
        generation_max_length: Most tokens per recording; 256 is the recipe's limit of a label.
        text_column_name: Column of reference texts, for the WER; by default text where there is one.
        output_dir: Folder of the new data set.
        overwrite_output_dir: Replace the data set of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range.
    """

    generation_max_length: int | None = 256
    text_column_name: str | None = None
    output_dir: str
    overwrite_output_dir: bool = False


def run_pseudo_labelling(config: PseudoLabelConfig) -> Path:
    """Write the labelled data set and return its folder.

    Raises:
        InputError: for whatever does not fit, before the teacher is loaded.
    """
    runner = config.make_runner()
    leads = jax.process_index() == 0
    folder = together(
        lambda: (
            check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
            if leads
            else Path(config.output_dir).expanduser().absolute()
        )
    )
    teacher = together(lambda: BatchTranscriber(config, runner))
    if teacher.is_multilingual and config.language is None:
        raise InputError(
            f"language is not given, and teacher {config.model_name_or_path!r} is multilingual: "
            "name the language"
        )
    data = together(
        lambda: load_source(config.dataset_name, **config.source_options(config.text_column_name))
    )
    if data.text_column is None and data.has_column(DEFAULT_TEXT_COLUMN):
        data = dataclasses.replace(data, text_column=DEFAULT_TEXT_COLUMN)
    result = teacher.transcribe(data, num_workers=config.dataloader_num_workers)
    together(lambda: _write(config, folder, data, result, teacher) if leads else None)
    return folder


def _write(
    config: PseudoLabelConfig,
    folder: Path,
    data: SpeechData,
    result: TranscribedSet,
    teacher: BatchTranscriber,
) -> None:
    """Write the data set and its summary, and say what was done."""
    summary = _summary(data, result, teacher.normalise)
    with staged(folder, stale=("data-*.arrow",)) as scratch:
        data.select(result.rows).with_columns(_columns(data, result, teacher.normalise)).save(scratch)
        (scratch / SUMMARY_NAME).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    against = "" if summary["wer"] is None else f", WER {summary['wer']:.2f} % against the references"
    print(
        f"labelled {len(result.rows)} of {len(data)} samples at RTFx {result.throughput.rtfx:.1f}{against}: "
        f"{config.output_dir}"
    )
    if result.skipped:
        log.warning("%s", result.skipped.report())


def _columns(data: SpeechData, result: TranscribedSet, normalise: Normaliser) -> dict[str, list]:
    texts = [transcript.text for transcript in result.transcripts]
    columns: dict[str, list] = {
        # With timestamps where they were asked for: distillation may train on them.
        PSEUDO_LABEL_COLUMN: [t.text_with_timestamps or t.text for t in result.transcripts],
        "avg_logprob": [t.avg_logprob for t in result.transcripts],
        "no_speech_prob": [t.no_speech_prob for t in result.transcripts],
        "compression_ratio": [compression_ratio(text) for text in texts],
        DURATION_COLUMN: result.durations,
    }
    if data.text_column is not None:
        columns["wer"] = [
            sample_wer(reference, text, normalise)
            for reference, text in zip(result.references, texts, strict=True)
        ]
    return columns


def _summary(data: SpeechData, result: TranscribedSet, normalise: Normaliser) -> dict[str, Any]:
    """Return what is written beside the data: counts, speed, and every skipped sample with its reason."""
    texts = [transcript.text for transcript in result.transcripts]
    errors = word_errors(result.references, texts, normalise)
    return {
        "samples": len(data),
        "labelled": len(result.rows),
        "skipped": result.skipped.counts(),
        "skipped_samples": {sample.sample_id: sample.reason for sample in result.skipped.samples()},
        "wer": errors.wer if errors.samples else None,
        "samples_with_reference": errors.samples,
        "audio_seconds": result.throughput.audio_seconds,
        "compute_seconds": result.throughput.compute_seconds,
        "compile_seconds": result.throughput.compile_seconds,
        "rtfx": result.throughput.rtfx,
        "tokens_per_second": result.throughput.tokens_per_second,
    }
