"""Audio files of at most 30 s to JSON files."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.audio import CHUNK_SECONDS, SAMPLING_RATE, audio_duration, decode_audio
from flax_distil.core import InputError
from flax_distil.data import stack_audio
from flax_distil.metrics import compression_ratio
from flax_distil.transcription import Transcript
from flax_distil.workflows.output_folder import check_output_dir, staged_folder
from flax_distil.workflows.speech_job import SpeechJobConfig, SpeechModel, transcribe_batches

OUTPUT_FORMATS = ("json",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig(SpeechJobConfig):
    """Transcribe audio files of at most 30 s, each into <stem>.json.

    Attributes:
        files: Audio files.
        output_format: Format of the results: json.

    Raises:
        InputError: if a value is out of range, or two files would have the same result.
    """

    files: list[str]
    output_format: str = "json"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.files:
            raise InputError("there is nothing to transcribe: name at least one audio file")
        if self.output_format not in OUTPUT_FORMATS:
            raise InputError(
                f"output_format {self.output_format!r} is unknown: expected {', '.join(OUTPUT_FORMATS)}"
            )
        by_stem: dict[str, str] = {}
        for file in self.files:
            stem = Path(file).stem
            if stem in by_stem:
                raise InputError(
                    f"{by_stem[stem]!r} and {file!r} would both be written to {stem}.json: "
                    "transcribe them into different folders"
                )
            by_stem[stem] = file


def run_transcription(config: TranscribeConfig) -> dict[str, Transcript]:
    """Transcribe files and write a JSON file for each.

    Returns:
        The transcripts by file, in the order given.

    Raises:
        InputError: if a file cannot be read or is longer than 30 s, or the model does not suit
            the options; nothing is written then.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    for file in config.files:
        _check_duration(file, audio_duration(Path(file).expanduser()))
    model = SpeechModel(config)
    transcriber = model.load()
    transcripts: dict[str, Transcript] = {}
    with staged_folder(folder) as stage:
        batches = _batches(config.files, model.batch_size(len(config.files)))
        for samples in transcribe_batches(transcriber, batches):
            for sample in samples:
                transcripts[sample.sample_id] = sample.transcript
                document = _document(sample.sample_id, sample.transcript, sample.duration_seconds)
                path = stage / f"{Path(sample.sample_id).stem}.json"
                path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return transcripts


def _check_duration(file: str, seconds: float) -> None:
    if seconds > CHUNK_SECONDS:
        raise InputError(
            f"audio file {file!r} is too long for a short-form job ({seconds:.2f} s of audio; at most "
            f"{CHUNK_SECONDS} s): cut it"
        )


def _batches(files: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Decode files, a batch at a time."""
    for start in range(0, len(files), batch_size):
        names = files[start : start + batch_size]
        missing = [""] * (batch_size - len(names))
        decoded = [decode_audio(Path(name).expanduser()) for name in names]
        seconds = [len(samples_W) / SAMPLING_RATE for samples_W in decoded]
        for name, length in zip(names, seconds, strict=True):
            _check_duration(name, length)  # again: a header may not tell the truth
        yield {
            "samples_BW": stack_audio(decoded, batch_size=batch_size),
            "index_B": np.arange(start, start + batch_size),
            "valid_B": np.arange(batch_size) < len(names),
            "duration_B": np.array(seconds + [0.0] * len(missing)),
            "ids": [*names, *missing],
            "references": [""] * batch_size,
        }


def _document(file: str, transcript: Transcript, seconds: float) -> dict[str, Any]:
    document = {
        "file": file,
        "text": transcript.text,
        "tokens": transcript.tokens,
        "avg_logprob": transcript.avg_logprob,
        "no_speech_prob": transcript.no_speech_prob,
        "compression_ratio": compression_ratio(transcript.text),
        "language": transcript.language,
        "duration": seconds,
    }
    if transcript.text_with_timestamps is not None:
        document["text_with_timestamps"] = transcript.text_with_timestamps
    return document
