"""The teacher transcribes a corpus; the result is a data set with its transcripts and confidences."""

import dataclasses
import logging
from pathlib import Path

from flax_distil.core import InputError
from flax_distil.data import DURATION_COLUMN, PSEUDO_LABEL_COLUMN, load_source
from flax_distil.metrics import compression_ratio, sample_wer, word_errors
from flax_distil.text import normaliser
from flax_distil.transcription import TranscriptionOptions
from flax_distil.weights import load_checkpoint
from flax_distil.workflows.batch_transcription import BatchTranscriber, TranscribedSet
from flax_distil.workflows.distil_models import read_tokenizer
from flax_distil.workflows.outputs import check_output_dir, staged

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig:
    """Transcribe a data set with a teacher and write it back with the transcripts.

    Attributes:
        model_name_or_path: Teacher, a folder or Hub id.
        dataset_name: Hub id, save_to_disk folder, audio folder, Parquet or JSONL file; several joined by +.
        dataset_config_name: Configuration of the data set.
        dataset_split_name: Split of the data set.
        audio_column_name: Column of recordings.
        text_column_name: Column of reference texts, for the WER; by default none.
        language: Language of the speech, name or code; needed by multilingual teachers.
        task: transcribe or translate.
        return_timestamps: Keep timestamps of segments in the transcripts.
        per_device_eval_batch_size: Samples per device.
        generation_max_length: Most tokens per sample; 256 is the recipe's limit of a label.
        dtype: float32, bfloat16 or float16.
        dataloader_num_workers: Threads that decode audio; by default the machine's cores.
        max_samples: Use only this many samples.
        output_dir: Folder of the new data set.
        overwrite_output_dir: Replace a folder that is not empty.
    """

    model_name_or_path: str
    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    audio_column_name: str = "audio"
    text_column_name: str | None = None
    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    per_device_eval_batch_size: int = 16
    generation_max_length: int = 256
    dtype: str = "float32"
    dataloader_num_workers: int | None = None
    max_samples: int | None = None
    output_dir: str
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


def run_pseudo_labelling(config: PseudoLabelConfig) -> Path:
    """Write the labelled data set and return its folder.

    Raises:
        InputError: for whatever does not fit, before the teacher is loaded.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    described = load_checkpoint(config.model_name_or_path, config_only=True)
    tokenizer, _ = read_tokenizer(described.files)
    if tokenizer.special.is_multilingual and config.language is None:
        raise InputError(
            f"language is not given, and teacher {config.model_name_or_path!r} is multilingual: "
            "name the language"
        )
    data = load_source(
        config.dataset_name,
        config_name=config.dataset_config_name,
        split=config.dataset_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        max_samples=config.max_samples,
    )
    teacher = BatchTranscriber(
        config.model_name_or_path,
        options=config.options,
        dtype=config.dtype,
        per_device_batch_size=config.per_device_eval_batch_size,
        num_workers=config.dataloader_num_workers,
    )
    result = teacher.transcribe(data)
    with staged(folder) as scratch:
        data.select(result.rows).with_columns(_columns(config, result)).save(scratch)
    log.info("labelled %d samples at %.1f x real time", len(result.rows), result.throughput.rtfx)
    if result.skipped:
        log.warning("%s", result.skipped.report())
    return folder


def _columns(config: PseudoLabelConfig, result: TranscribedSet) -> dict[str, list]:
    texts = [transcript.text for transcript in result.transcripts]
    columns = {
        PSEUDO_LABEL_COLUMN: [t.text_with_timestamps or t.text for t in result.transcripts],
        "avg_logprob": [t.avg_logprob for t in result.transcripts],
        "no_speech_prob": [t.no_speech_prob for t in result.transcripts],
        "compression_ratio": [compression_ratio(text) for text in texts],
        DURATION_COLUMN: result.durations,
    }
    if config.text_column_name is not None:
        spoken = (config.options.language or "en") if config.task == "transcribe" else "en"
        normalise = normaliser(spoken)
        columns["wer"] = [
            sample_wer(reference, text, normalise)
            for reference, text in zip(result.references, texts, strict=True)
        ]
        errors = word_errors(result.references, texts, normalise)
        log.info("WER of the labels against the references: %.2f %%", errors.wer)
    return columns
