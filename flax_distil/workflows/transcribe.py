"""Files and addresses to transcripts on disk."""

import dataclasses
import logging
import os
import urllib.parse
from pathlib import Path

from flax_distil.core import InputError
from flax_distil.data.reading.remote import is_remote
from flax_distil.transcription import Transcript, TranscriptionOptions
from flax_distil.transcription.options import clip_times
from flax_distil.workflows.audio_inputs import RETRY_SECONDS
from flax_distil.workflows.outputs import check_writable, make_folder
from flax_distil.workflows.read_ahead import read_ahead
from flax_distil.workflows.recording_stream import Outcome, RecordingStream, Route
from flax_distil.workflows.transcript_writers import NEED_TIMESTAMPS, WRITERS, SubtitleOptions, render
from flax_distil.workflows.transcription_config import TranscriptionConfig, check_positive
from flax_distil.workflows.transcription_model import configured_model

log = logging.getLogger(__name__)

ALL_FORMATS = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig(TranscriptionConfig):
    """Transcribe recordings of any length.

    Attributes:
        files: Audio files of any format and rate, or their addresses (http(s)://, gs://, s3://, hf://).
        output_dir: Where <stem>.<format> is written.
        output_format: json, txt, srt, vtt, tsv or all; the last four switch return_timestamps on.
        overwrite_output_dir: Replace the transcripts of an earlier run in output_dir; other files stay.
        mode: auto (chunked if chunk_length_s is given, otherwise sequential), sequential, chunked, or short
            (one window of at most 30 s).
        chunk_length_s: Seconds of a chunk, at most 30.
        stride_length_s: Seconds that chunks share on each side; by default a sixth of chunk_length_s.
        chunk_merging: timestamps (chunks are decoded with timestamps and merged by them), or
            longest_common_sequence (as transformers merges them, a window each).
        condition_on_prev_tokens: Sequential: prompt each window with the text before it.
        vad: Sequential: leave out what is no speech: auto, silero or energy; by default all is heard.
        clip_timestamps: Sequential: transcribe only these stretches: start,end,start,end,… in seconds; the
            last end may be left out.
        hallucination_silence_threshold: With word_timestamps: skip silences longer than so many seconds
            beside improbable words, and leave those out.
        word_timestamps: Find when each word is spoken; switches return_timestamps on.
        max_line_width: Subtitles: characters of a line; with word_timestamps, like the next three.
        max_line_count: Subtitles: lines of one, with max_line_width.
        highlight_words: Subtitles: underline each word as it is spoken.
        max_words_per_line: Subtitles: words of one, without max_line_width.
        source_retry_seconds: Ask a server that does not answer again for so many seconds.

    Raises:
        InputError: if a value is out of range, or two files would have the same transcript.
    """

    files: list[str]
    output_dir: str = "."
    output_format: str = "json"
    overwrite_output_dir: bool = False
    mode: str = "auto"
    chunk_length_s: float | None = None
    stride_length_s: float | None = None
    chunk_merging: str = "timestamps"
    condition_on_prev_tokens: bool = False
    vad: str | None = None
    clip_timestamps: str | None = None
    hallucination_silence_threshold: float | None = None
    word_timestamps: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    max_words_per_line: int | None = None
    source_retry_seconds: float = RETRY_SECONDS

    def __post_init__(self) -> None:
        if self.output_format not in (*WRITERS, ALL_FORMATS):
            expected = ", ".join([*WRITERS, ALL_FORMATS])
            raise InputError(f"output_format {self.output_format!r} is unknown: expected one of {expected}")
        super().__post_init__()
        check_positive(self, "max_line_width", "max_line_count", "max_words_per_line")
        laid_out = [field.name for field in dataclasses.fields(SubtitleOptions) if getattr(self, field.name)]
        if laid_out and not self.word_timestamps:
            raise InputError(f"{laid_out[0]} lays out words, whose times are not known: add word_timestamps")
        self.route(self.per_device_eval_batch_size).check(self.options)
        if not self.files:
            raise InputError("no audio file is given: name at least one")
        by_name: dict[str, str] = {}
        for file in self.files:
            name = self.output_names(file)[0]
            if name in by_name:
                raise InputError(
                    f"the transcripts of {by_name[name]!r} and {file!r} would both be {name}: "
                    "write them into different folders"
                )
            by_name[name] = file

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to write."""
        return tuple(WRITERS) if self.output_format == ALL_FORMATS else (self.output_format,)

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return dataclasses.replace(
            super().options,
            return_timestamps=self.return_timestamps
            or self.word_timestamps
            or any(name in NEED_TIMESTAMPS for name in self.formats),
            word_timestamps=self.word_timestamps,
            condition_on_prev_tokens=self.condition_on_prev_tokens,
            vad=self.vad,
            clip_timestamps=clip_times(self.clip_timestamps or ""),
            hallucination_silence_threshold=self.hallucination_silence_threshold,
        )

    @property
    def subtitles(self) -> SubtitleOptions:
        """How words are laid out."""
        return SubtitleOptions(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(SubtitleOptions)}
        )

    def route(self, batch_size: int) -> Route:
        """Return how recordings are transcribed, so many windows at once."""
        return Route(
            mode=self.mode,
            batch_size=batch_size,
            chunk_length_s=self.chunk_length_s,
            stride_length_s=self.stride_length_s,
            chunk_merging=self.chunk_merging,
            keep_temperature=self.temperatures is not None,
        )

    def output_names(self, file: str) -> list[str]:
        """Return the names of a file's transcripts."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(file).path) if is_remote(file) else file
        return [f"{Path(path).stem}.{name}" for name in self.formats]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedFiles:
    """What a run wrote.

    Attributes:
        written: transcripts.
        failed: files that could not be transcribed, each with one sentence.
    """

    written: list[Path]
    failed: dict[str, str]


def run_transcription(config: TranscribeConfig) -> TranscribedFiles:
    """Transcribe every file, and write each transcript when it is there.

    A killed run keeps those that it wrote. A file that cannot be read is named, and the rest is done.

    Raises:
        InputError: if a transcript is there already or a flag does not fit, before the weights are read; or
            if no file can be transcribed.
    """
    folder = check_writable(config.output_dir)
    names = [name for file in config.files for name in config.output_names(file)]
    taken = next((name for name in names if (folder / name).exists()), None)
    if taken is not None and not config.overwrite_output_dir:
        raise InputError(
            f"output_dir {config.output_dir!r} already holds {taken}: "
            "choose another, or set overwrite_output_dir"
        )
    runner = config.make_runner()
    if runner.shard_count > 1:
        raise InputError("transcribe runs in one process: start it on one machine, or split the files")
    options = config.options
    model = configured_model(config, runner)
    route = config.route(config.per_device_eval_batch_size * runner.local_batch_shards)
    stream = RecordingStream(model, runner, options, route)
    reads = read_ahead(((file, file) for file in config.files), retry_seconds=config.source_retry_seconds)
    done = TranscribedFiles(written=[], failed={})
    for outcome in stream.transcribe(reads):
        if outcome.transcript is None:
            done.failed[outcome.name] = str(outcome.error)
            log.error("%s", outcome.error)
        else:
            done.written.extend(_write(config, folder, outcome, outcome.transcript))
            print(f"{outcome.name}: {_shown(outcome.transcript, options)}", flush=True)
    if not done.written:
        raise InputError(
            f"none of {len(config.files)} files could be transcribed: {next(iter(done.failed.values()))}"
        )
    return done


def _write(config: TranscribeConfig, folder: Path, outcome: Outcome, transcript: Transcript) -> list[Path]:
    """Write the transcript of a recording in every format; a file is there whole or not at all."""
    make_folder(folder)
    written = []
    for name, output_format in zip(config.output_names(outcome.name), config.formats, strict=True):
        text = render(transcript, outcome.seconds, output_format, config.subtitles)
        scratch = folder / f".writing-{os.getpid()}-{name}"
        scratch.write_text(text, encoding="utf-8", newline="\n")
        os.replace(scratch, folder / name)
        written.append(folder / name)
    return written


def _shown(transcript: Transcript, options: TranscriptionOptions) -> str:
    return (options.return_timestamps and transcript.text_with_timestamps) or transcript.text
