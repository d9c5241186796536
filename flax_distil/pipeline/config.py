"""The settings of ``transcribe``."""

import dataclasses

from flax_distil.audio.vad_config import SpeechConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.read_audio import RETRY_SECONDS, ChannelChoice
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.pipeline.writers.formats import NEED_TIMESTAMPS, WRITERS, SubtitleOptions
from flax_distil.transcription.config import TranscriptionConfig
from flax_distil.transcription.options import (
    APPEND_PUNCTUATIONS,
    PREPEND_PUNCTUATIONS,
    TranscriptionOptions,
    clip_times,
)

ALL_FORMATS = "all"

STANDARD_OUTPUT = "-"
"""The ``output_dir`` that prints transcripts instead of writing files."""


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
        self.transcribe_mode(self.per_device_eval_batch_size).check(self.options)
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

    def transcribe_mode(self, batch_size: int) -> TranscribeMode:
        """Return how recordings are transcribed, with this many windows at once."""
        return TranscribeMode(
            mode=self.mode,
            batch_size=batch_size,
            chunk_length_s=self.chunk_length_s,
            stride_length_s=self.stride_length_s,
            chunk_merging=self.chunk_merging,
            keep_temperature=self.temperatures is not None,
        )
