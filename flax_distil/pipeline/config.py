"""The settings of ``transcribe``."""

import dataclasses

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.data.config import ChannelConfig, ReadingConfig
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.storage.output_dir import OutputConfig
from flax_distil.transcription.config import FLAG_NAMES, TranscriptionConfig
from flax_distil.transcription.options import TranscriptionOptions

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
"""Formats of transcripts, which are also the endings of their files."""

ALL_FORMATS = "all"

FORMATS_WITH_TIMESTAMPS = ("srt", "vtt", "tsv")

STANDARD_OUTPUT = "-"
"""The ``output_dir`` that prints transcripts instead of writing files."""

RETRY_SECONDS = 60.0
"""How many seconds failed requests to a server are repeated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelChoice(ChannelConfig):
    """Channels.

    Attributes:
        split_channels: Transcribe each channel separately, for example for calls with one speaker per
            channel. The segments of all channels are sorted by time, in json with their channel. Switches
            return_timestamps on.

    Raises:
        InputError: If the channel is negative, or both are given.
    """

    split_channels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channel is not None and self.split_channels:
            raise InputError("channel takes one channel and split_channels takes all: choose one of them")


MEAN_OF_CHANNELS = ChannelChoice()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubtitleOptions:
    """Subtitles.

    With word_timestamps, these lay out the words; without it, a segment is a subtitle.

    Attributes:
        max_line_width: Maximum number of characters of a line.
        max_line_count: Maximum number of lines of a subtitle. With max_line_width, the words of several
            segments flow together.
        highlight_words: Underline each word as it is spoken, with one subtitle for each word.
        max_words_per_line: Maximum number of words of a line, where max_line_width is not given.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    max_words_per_line: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "max_line_width", "max_line_count", "max_words_per_line")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeConfig(TranscriptionConfig):
    """Transcribe recordings of any length.

    Attributes:
        files: Audio files of any format and rate, folders of them, quoted patterns such as 'talks/*.mp3', or
            addresses (http(s)://, gs://, s3://, hf://).
        recursive: Search subfolders of the given folders too. The names of transcripts keep the subfolders.
        output: Where transcripts are written.
        output_format: json, txt, srt, vtt, tsv or all. The last four switch return_timestamps on. By default
            json, and txt if the text is printed.
        skip_existing: Leave out recordings whose transcripts exist, to continue where a run was stopped.
        verbose: Show segments as they are found; false shows the progress bar alone.
        decoding: What to transcribe into, and how.
        windows: How recordings are cut into windows.
        channels: Which channels are transcribed.
        subtitles: How words are laid out.
        reading: How long servers are asked again.

    Raises:
        InputError: If a value is out of range, or two contradict each other.
    """

    files: list[str]
    recursive: bool = False
    output: OutputConfig = nested(
        OutputConfig(output_dir="."),
        types={"output_dir": str},
        help={
            "output_dir": "Folder where <stem>.<format> is written; - prints the text instead.",
            "overwrite_output_dir": "Replace the transcripts of an earlier run in output_dir; other files "
            "stay.",
        },
    )
    output_format: str | None = None
    skip_existing: bool = False
    verbose: bool = True
    decoding: TranscriptionOptions = nested(
        TranscriptionOptions(), rename=FLAG_NAMES, types={"clip_timestamps": str | None}
    )
    windows: TranscribeMode = nested(TranscribeMode(), types={"stride_length_s": float | None})
    channels: ChannelChoice = ChannelChoice()
    subtitles: SubtitleOptions = SubtitleOptions()
    reading: ReadingConfig = nested(
        ReadingConfig(source_retry_seconds=RETRY_SECONDS),
        show={"source_retry_seconds"},
        help={"source_retry_seconds": "How many seconds failed requests to a server are repeated."},
        section="Main flags",
    )

    def __post_init__(self) -> None:
        if self.output_format not in (None, *FORMATS, ALL_FORMATS):
            expected = ", ".join([*FORMATS, ALL_FORMATS])
            raise InputError(f"output_format {self.output_format!r} is unknown: expected one of {expected}")
        if self.output.output_dir == STANDARD_OUTPUT and self.output_format == ALL_FORMATS:
            raise InputError("output_format 'all' is for files, and output_dir '-' prints: choose one format")
        if self.skip_existing and self.output.overwrite_output_dir:
            raise InputError("skip_existing and overwrite_output_dir contradict each other: choose one")
        given = [name for name, value in dataclasses.asdict(self.subtitles).items() if value]
        if given and not self.decoding.word_timestamps:
            raise InputError(f"{given[0]} lays out words, whose times are not known: add word_timestamps")
        self.windows.check(self.options)
        if not self.files:
            raise InputError("no audio file is given: name at least one")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to write."""
        if self.output_format == ALL_FORMATS:
            return FORMATS
        return (self.output_format or ("txt" if self.output.output_dir == STANDARD_OUTPUT else "json"),)

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into: with timestamps where words, channels or formats need them."""
        return dataclasses.replace(
            self.decoding,
            return_timestamps=self.decoding.return_timestamps
            or self.decoding.word_timestamps
            or self.channels.split_channels
            or any(name in FORMATS_WITH_TIMESTAMPS for name in self.formats),
        )
