"""Files and addresses to transcripts on disk."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from flax_distil.audio.vad_config import SpeechConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.audio_inputs import RETRY_SECONDS
from flax_distil.pipeline.inputs.channel_reading import ChannelChoice
from flax_distil.pipeline.inputs.find_inputs import TranscribeInput, find_inputs
from flax_distil.pipeline.inputs.load_ahead import read_ahead
from flax_distil.pipeline.scheduler import RecordingStream, Route
from flax_distil.pipeline.transcription_model import configured_model
from flax_distil.pipeline.writers.formats import NEED_TIMESTAMPS, WRITERS, SubtitleOptions
from flax_distil.pipeline.writers.progress import TranscribeProgress
from flax_distil.pipeline.writers.transcript_output import (
    STANDARD_OUTPUT,
    StandardOutput,
    TranscriptFolder,
    TranscriptOutput,
)
from flax_distil.transcription.config import TranscriptionConfig
from flax_distil.transcription.options import (
    APPEND_PUNCTUATIONS,
    PREPEND_PUNCTUATIONS,
    TranscriptionOptions,
    clip_times,
)

log = logging.getLogger(__name__)

ALL_FORMATS = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig(SpeechConfig, TranscriptionConfig):
    """Transcribe recordings of any length.

    Attributes:
        files: Audio files of any format and rate, folders of them, quoted patterns such as 'talks/*.mp3', or
            addresses (http(s)://, gs://, s3://, hf://).
        recursive: Search the sub-folders of folders too; they stay in the names of transcripts.
        output_dir: Where <stem>.<format> is written; - prints the text instead.
        output_format: json, txt, srt, vtt, tsv or all; the last four switch return_timestamps on. By default
            json, and txt where it is printed.
        skip_existing: Leave out recordings whose transcripts are there: go on where a run was stopped.
        overwrite_output_dir: Replace the transcripts of an earlier run in output_dir; other files stay.
        verbose: Show segments as they are found; false leaves the bar alone.
        mode: auto (chunked if chunk_length_s is given, otherwise sequential), sequential, chunked, or short
            (one window of at most 30 s).
        chunk_length_s: Seconds of a chunk, at most 30.
        stride_length_s: Seconds that chunks share on each side; by default a sixth of chunk_length_s.
        chunk_merging: timestamps (chunks are decoded with timestamps and merged by them), or
            longest_common_sequence (as transformers merges them, a window each).
        channel: Channel of the recordings to transcribe, counted from 0; by default the mean of all.
        split_channels: Transcribe each channel by itself, as of calls with a speaker on each; segments of all
            come in order of time, in json with their channel. Switches return_timestamps on.
        condition_on_prev_tokens: Sequential: prompt each window with the text before it.
        clip_timestamps: Sequential: transcribe only these stretches: start,end,start,end,… in seconds; the
            last end may be left out.
        hallucination_silence_threshold: With word_timestamps: skip silences longer than so many seconds
            beside improbable words, and leave those out.
        word_timestamps: Find when each word is spoken; switches return_timestamps on.
        prepend_punctuations: Marks that belong to the word behind them, with word_timestamps.
        append_punctuations: Marks that belong to the word before them, with word_timestamps.
        max_line_width: Subtitles: characters of a line; with word_timestamps, like the next three.
        max_line_count: Subtitles: lines of one, with max_line_width.
        highlight_words: Subtitles: underline each word as it is spoken.
        max_words_per_line: Subtitles: words of one, without max_line_width.
        source_retry_seconds: Ask a server that does not answer again for so many seconds.

    Raises:
        InputError: if a value is out of range, or two contradict each other.
    """

    files: list[str]
    recursive: bool = False
    output_dir: str = "."
    output_format: str | None = None
    skip_existing: bool = False
    overwrite_output_dir: bool = False
    verbose: bool = True
    mode: str = "auto"
    chunk_length_s: float | None = None
    stride_length_s: float | None = None
    chunk_merging: str = "timestamps"
    channel: int | None = None
    split_channels: bool = False
    condition_on_prev_tokens: bool = False
    clip_timestamps: str | None = None
    hallucination_silence_threshold: float | None = None
    word_timestamps: bool = False
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    max_words_per_line: int | None = None
    source_retry_seconds: float = RETRY_SECONDS

    def __post_init__(self) -> None:
        if self.output_format not in (None, *WRITERS, ALL_FORMATS):
            expected = ", ".join([*WRITERS, ALL_FORMATS])
            raise InputError(f"output_format {self.output_format!r} is unknown: expected one of {expected}")
        if self.output_dir == STANDARD_OUTPUT and self.output_format == ALL_FORMATS:
            raise InputError("output_format 'all' is for files, and output_dir '-' prints: choose one format")
        if self.skip_existing and self.overwrite_output_dir:
            raise InputError("skip_existing and overwrite_output_dir contradict each other: choose one")
        super().__post_init__()
        check_positive(self, "max_line_width", "max_line_count", "max_words_per_line")
        laid_out = [field.name for field in dataclasses.fields(SubtitleOptions) if getattr(self, field.name)]
        if laid_out and not self.word_timestamps:
            raise InputError(f"{laid_out[0]} lays out words, whose times are not known: add word_timestamps")
        _ = self.channels
        self.route(self.per_device_eval_batch_size).check(self.options)
        if not self.files:
            raise InputError("no audio file is given: name at least one")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to write."""
        if self.output_format == ALL_FORMATS:
            return tuple(WRITERS)
        return (self.output_format or ("txt" if self.output_dir == STANDARD_OUTPUT else "json"),)

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return dataclasses.replace(
            super().options,
            return_timestamps=self.return_timestamps
            or self.word_timestamps
            or self.split_channels
            or any(name in NEED_TIMESTAMPS for name in self.formats),
            word_timestamps=self.word_timestamps,
            condition_on_prev_tokens=self.condition_on_prev_tokens,
            vad=self.vad,
            vad_parameters=self.vad_parameters,
            prepend_punctuations=self.prepend_punctuations,
            append_punctuations=self.append_punctuations,
            clip_timestamps=clip_times(self.clip_timestamps or ""),
            hallucination_silence_threshold=self.hallucination_silence_threshold,
        )

    @property
    def channels(self) -> ChannelChoice:
        """Which channels are heard."""
        return ChannelChoice(channel=self.channel, split=self.split_channels)

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

    def open_output(self) -> TranscriptOutput:
        """Return where transcripts go.

        Raises:
            InputError: if nothing can be written there.
        """
        if self.output_dir == STANDARD_OUTPUT:
            return StandardOutput(self.formats[0], self.subtitles)
        return TranscriptFolder(self.output_dir, self.formats, self.subtitles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedFiles:
    """What became of the recordings of a run.

    Attributes:
        written: transcripts.
        failed: recordings that could not be transcribed, each with one sentence.
        transcribed: how many were.
    """

    written: list[Path]
    failed: dict[str, str]
    transcribed: int


def run_transcription(config: TranscribeConfig) -> TranscribedFiles:
    """Transcribe every recording, and write each transcript when it is there.

    A killed run keeps those that it wrote. A file that cannot be read is named, and the rest is done.

    Raises:
        InputError: if a transcript is there already or a flag does not fit, before the weights are read; or
            if no file can be transcribed.
    """
    inputs = find_inputs(config.files, recursive=config.recursive)
    output = config.open_output()
    chosen = output.choose(inputs, overwrite=config.overwrite_output_dir, skip_existing=config.skip_existing)
    if len(chosen) < len(inputs):
        log.info(
            "transcripts of %d of %d recordings are there already", len(inputs) - len(chosen), len(inputs)
        )
    if not chosen:
        return TranscribedFiles(written=[], failed={}, transcribed=0)
    partitioner = config.make_partitioner()
    if partitioner.shard_count > 1:
        raise InputError("transcribe runs in one process: start it on one machine, or split the files")
    model = configured_model(config, partitioner)
    route = config.route(config.per_device_eval_batch_size * partitioner.local_batch_shards)
    stream = RecordingStream(model, partitioner, config.options, route)
    done = _transcribe(config, stream, chosen, output)
    if not done.transcribed and len(chosen) == len(inputs):
        raise InputError(
            f"none of {len(chosen)} files could be transcribed: {next(iter(done.failed.values()))}"
        )
    return done


def _transcribe(
    config: TranscribeConfig,
    stream: RecordingStream,
    inputs: Sequence[TranscribeInput],
    output: TranscriptOutput,
) -> TranscribedFiles:
    """Transcribe recordings as they are read, and write what is found as it is found."""
    written: list[Path] = []
    failed: dict[str, str] = {}
    named = {recording.given: recording for recording in inputs}
    verbose = config.verbose and config.output_dir != STANDARD_OUTPUT

    def fail(name: str, sentence: str) -> None:
        failed[name] = sentence
        log.error("%s", sentence)
        written.extend(output.write(named[name], None, 0.0))

    for recording in inputs:
        if sentence := output.refusal(recording):
            fail(recording.given, sentence)
    to_read = [name for name in named if name not in failed]
    reads = read_ahead(
        zip(to_read, to_read, strict=True),
        retry_seconds=config.source_retry_seconds,
        channels=config.channels,
    )
    with TranscribeProgress(len(to_read), verbose=verbose) as progress:
        for outcome in stream.transcribe(progress.counted(reads), on_segment=progress.segment):
            progress.finished(outcome)
            if outcome.transcript is None:
                fail(outcome.name, str(outcome.error))
            else:
                written += output.write(named[outcome.name], outcome.transcript, outcome.seconds)
    return TranscribedFiles(written=written, failed=failed, transcribed=len(inputs) - len(failed))
