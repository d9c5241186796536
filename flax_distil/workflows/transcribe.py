"""Files to transcripts, short-form."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, SAMPLING_RATE, decode_audio, pad_or_trim
from flax_distil.core import InputError
from flax_distil.model import ComputeOptions
from flax_distil.transcription import ShortFormTranscriber, Transcript, TranscriptionOptions
from flax_distil.weights import load_checkpoint
from flax_distil.workflows.distil_models import read_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """Transcribe recordings of at most 30 s.

    Attributes:
        files: Audio files of any format and rate.
        model: Checkpoint, a folder or Hub id.
        output_dir: Where <stem>.<format> is written.
        output_format: json or txt.
        language: Language of the speech, name or code; by default detected.
        task: transcribe or translate.
        return_timestamps: Add timestamps of segments.
        batch_size: Recordings per batch.
        dtype: float32, bfloat16 or float16.
    """

    files: list[str]
    model: str
    output_dir: str = "."
    output_format: str = "json"
    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    batch_size: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.output_format not in ("json", "txt"):
            raise InputError(f"output_format {self.output_format!r} is unknown: expected json or txt")
        if not self.files:
            raise InputError("no audio file is given")
        if self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size} is below 1")
        stems = [Path(file).stem for file in self.files]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice is not None:
            raise InputError(f"two files are named {twice!r}: transcribe them into different folders")
        _ = self.options

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return TranscriptionOptions(
            language=self.language, task=self.task, return_timestamps=self.return_timestamps
        )


def run_transcription(config: TranscribeConfig) -> list[Path]:
    """Transcribe every file and return the files written.

    Raises:
        InputError: if a file cannot be read or is longer than 30 s, before the model is loaded.
    """
    recordings = [_read(file) for file in config.files]
    checkpoint = load_checkpoint(config.model)
    tokenizer, settings = read_tokenizer(checkpoint.files)
    transcriber = ShortFormTranscriber(
        checkpoint.config,
        checkpoint.params,
        tokenizer,
        settings,
        options=config.options,
        compute=ComputeOptions(dtype=config.dtype),
    )
    size = min(config.batch_size, len(recordings))
    transcripts: list[Transcript] = []
    for first in range(0, len(recordings), size):
        batch = recordings[first : first + size]
        blank = [np.zeros(CHUNK_SAMPLES, np.float32)] * (size - len(batch))
        transcripts += transcriber.transcribe(np.stack(batch + blank))[: len(batch)]
    folder = Path(config.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, transcript in zip(config.files, transcripts, strict=True):
        path = folder / f"{Path(file).stem}.{config.output_format}"
        path.write_text(_render(transcript, config.output_format), encoding="utf-8")
        print(f"{file}: {transcript.text_with_timestamps or transcript.text}")
        written.append(path)
    return written


def _read(file: str) -> np.ndarray:
    samples_W = decode_audio(Path(file))
    if len(samples_W) > CHUNK_SAMPLES:
        raise InputError(
            f"{file!r} lasts {len(samples_W) / SAMPLING_RATE:.1f} s, and short-form transcription takes at "
            "most 30 s: cut it"
        )
    return pad_or_trim(samples_W)


def _render(transcript: Transcript, output_format: str) -> str:
    if output_format == "txt":
        return (transcript.text_with_timestamps or transcript.text) + "\n"
    document = dataclasses.asdict(transcript)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
