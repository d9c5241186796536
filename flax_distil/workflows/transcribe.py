"""Files to transcripts, short-form."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.audio import CHUNK_SECONDS, SAMPLING_RATE, audio_duration, decode_audio
from flax_distil.core import InputError
from flax_distil.data import stack_audio
from flax_distil.transcription import Transcript
from flax_distil.workflows.batch_transcription import BatchTranscriber, transcribe_batches
from flax_distil.workflows.outputs import check_writable, staged
from flax_distil.workflows.transcription_config import TranscriptionConfig

OUTPUT_FORMATS = ("json", "txt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig(TranscriptionConfig):
    """Transcribe recordings of at most 30 s.

    Attributes:
        files: Audio files of any format and rate.
        output_dir: Where <stem>.<format> is written.
        output_format: json or txt.
        overwrite_output_dir: Replace the transcripts of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range, or two files would have the same transcript.
    """

    files: list[str]
    output_dir: str = "."
    output_format: str = "json"
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_format not in OUTPUT_FORMATS:
            expected = " or ".join(OUTPUT_FORMATS)
            raise InputError(f"output_format {self.output_format!r} is unknown: expected {expected}")
        if not self.files:
            raise InputError("no audio file is given: name at least one")
        by_name: dict[str, str] = {}
        for file in self.files:
            name = self.output_name(file)
            if name in by_name:
                raise InputError(
                    f"the transcripts of {by_name[name]!r} and {file!r} would both be {name}: "
                    "write them into different folders"
                )
            by_name[name] = file

    def output_name(self, file: str) -> str:
        """Return the name of a file's transcript."""
        return f"{Path(file).stem}.{self.output_format}"


def run_transcription(config: TranscribeConfig) -> list[Path]:
    """Transcribe every file and return the files written: all of them, or none.

    Raises:
        InputError: if a file cannot be read or is longer than 30 s, before the model is loaded,
            or a transcript is there already.
    """
    folder = check_writable(config.output_dir)
    taken = next((file for file in config.files if (folder / config.output_name(file)).exists()), None)
    if taken is not None and not config.overwrite_output_dir:
        raise InputError(
            f"output_dir {config.output_dir!r} already holds {config.output_name(taken)}: "
            "choose another, or set overwrite_output_dir"
        )
    for file in config.files:
        _check_duration(file, audio_duration(Path(file).expanduser()))
    runner = config.make_runner()
    if runner.shard_count > 1:
        raise InputError("transcribe runs in one process: start it on one machine, or split the files")
    model = BatchTranscriber(config, runner)
    transcriber = model.load()
    batches = _batches(config.files, model.batch_size(len(config.files)))
    with staged(folder) as scratch:
        for rows in transcribe_batches(transcriber, batches):
            for _, file, _, seconds, transcript in rows:
                text = _render(transcript, seconds, config.output_format)
                (scratch / config.output_name(file)).write_text(text, encoding="utf-8")
                print(f"{file}: {transcript.text_with_timestamps or transcript.text}")
    return [folder / config.output_name(file) for file in config.files]


def _check_duration(file: str, seconds: float) -> None:
    # A header may count a little more than there is; what is decoded decides.
    if seconds > CHUNK_SECONDS:
        raise InputError(
            f"{file!r} lasts {seconds:.1f} s, and short-form transcription takes at most "
            f"{CHUNK_SECONDS} s: cut it"
        )


def _batches(files: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Decode files, a batch at a time."""
    for start in range(0, len(files), batch_size):
        names = files[start : start + batch_size]
        recordings = [decode_audio(Path(name).expanduser()) for name in names]
        seconds = [len(samples_W) / SAMPLING_RATE for samples_W in recordings]
        for name, length in zip(names, seconds, strict=True):
            _check_duration(name, length)
        missing = batch_size - len(names)
        yield {
            "samples_BW": stack_audio(recordings, batch_size=batch_size),
            "index_B": np.arange(start, start + batch_size),
            "valid_B": np.arange(batch_size) < len(names),
            "duration_B": np.array(seconds + [0.0] * missing),
            "ids": [*names, *[""] * missing],
            "references": [""] * batch_size,
        }


def _render(transcript: Transcript, seconds: float, output_format: str) -> str:
    if output_format == "txt":
        return (transcript.text_with_timestamps or transcript.text) + "\n"
    document = dataclasses.asdict(transcript) | {"duration": seconds}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
