"""Decode one row of a data set, or raise an error with the reason why it cannot be used."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.audio.reading.decoding import audio_duration, decode_audio
from flax_distil.audio.reading.errors import TOO_LONG, UNREADABLE, AudioError, LongAudioError
from flax_distil.audio.reading.excerpts import decode_excerpt, excerpt_duration
from flax_distil.audio.reading.sources import raw_format
from flax_distil.audio.segmentation import flac_bytes
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.secrets import without_secrets
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.example import Example
from flax_distil.data.fragments import Fragment, parse_fragment
from flax_distil.storage.remote_files import is_remote, read_bytes
from flax_distil.storage.retries import RetryPolicy, SourceMissingError

MAX_REASON = 600
"""Maximum number of characters of a reason, which may quote a value that is a long text instead of a path."""

NO_AUDIO = "without audio"
NO_SPEECH = "without speech"
TOO_SHORT = "too short"
NO_LABEL = "without label"
LABEL_TOO_LONG = "with too long a label"
MALFORMED = "with a value of the wrong kind"

AUDIO_ERRORS = (AudioError, OSError, ValueError, RuntimeError, LookupError)
"""Exceptions of decoders. They are more than AudioError, because no damaged file must end a command."""


class SampleError(Exception):
    """The reason why a row cannot become a sample.

    Args:
        kind: A few words by which rows are counted: a constant of this file or of
            ``audio/reading/errors.py``.
        reason: The whole reason, for the list at the end of a command.
    """

    def __init__(self, kind: str, reason: str):
        reason = without_secrets(" ".join(reason.split()))  # names of files may have line breaks
        self.reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
        self.kind = kind
        super().__init__(self.reason)


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """The text of one of several recordings that were concatenated.

    Attributes:
        text: Label of the recording, with timestamps relative to its beginning; None if it has no label.
        start: Start of the recording in seconds, a multiple of 0.02.
        end: Start of the next recording, or end of the last one, in seconds; a multiple of 0.02.
    """

    text: str | None
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class DecodedExample:
    """The audio and texts of one row, or of several rows whose recordings were concatenated.

    Attributes:
        index: Number of its row in the data set.
        sample_id: Stable name of the sample.
        samples_W: Mono audio samples at 16 kHz in [-1, 1]; None if audio was not asked for.
        duration_seconds: Length of the recording in seconds.
        reference: Reference text; None if there is none.
        label: Text to train on, which is the pseudo-label, or else the reference. None if there are
            ``parts``.
        parts: Labels of concatenated recordings; empty for a single row.
        speed: Factor by which augmentation made the recording faster; timestamps must be divided by it.
        seed: Seed of the augmentation on devices.
        offset_seconds: Time by which other sounds were put before the speech; timestamps must be moved by it.
    """

    index: int
    sample_id: str
    samples_W: Float[np.ndarray, " W"] | None
    duration_seconds: float
    reference: str | None
    label: str | None
    parts: tuple[TextPart, ...] = ()
    speed: float = 1.0
    seed: int = 0
    offset_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DurationLimits:
    """Limits of the duration of recordings that are used.

    Attributes:
        min_seconds: Recordings must be longer than this.
        max_seconds: Recordings must be shorter than this, or not longer if ``allow_max``.
        allow_max: Whether exactly ``max_seconds`` is allowed.
    """

    min_seconds: float = 0.0
    max_seconds: float = float(CHUNK_SECONDS)
    allow_max: bool = True

    def check(self, seconds: float) -> None:
        """Raise :class:`SampleError` if a recording of this length is outside the limits."""
        if seconds <= self.min_seconds:
            raise SampleError(
                TOO_SHORT, f"{seconds:.2f} s of audio: more than {self.min_seconds:g} s are needed"
            )
        if seconds > self.max_seconds or (seconds == self.max_seconds and not self.allow_max):
            raise self.too_long(f"{seconds:.2f} s")

    def too_long(self, length: str) -> SampleError:
        """Return the error for a recording of a length such as ``"31.50 s"``."""
        limit = "at most" if self.allow_max else "less than"
        return SampleError(TOO_LONG, f"{length} of audio: {limit} {self.max_seconds:g} s are taken")


def decode_row(row: Example, limits: DurationLimits, *, policy: RetryPolicy | None = None) -> DecodedExample:
    """Decode the audio of a row.

    Args:
        row: The row; if its path is an address, the file is downloaded.
        limits: Limits of the duration of recordings.
        policy: Policy for repeating failed requests; by default the policy of the row.

    Raises:
        SampleError: If the row is malformed, there is no audio, it cannot be decoded, or its duration is
            out of bounds.
        SourceError: If its server cannot be read from, which says nothing about the sample.
    """
    audio = row_audio(row, policy)
    if audio.fragment is not None and audio.fragment.seconds is not None:
        limits.check(audio.fragment.seconds)
    with sample_errors(limits):
        samples_W = audio.decode(max_seconds=limits.max_seconds)
    seconds = len(samples_W) / SAMPLING_RATE
    limits.check(seconds)
    return _sample(row, samples_W, seconds)


def row_duration(row: Example, policy: RetryPolicy | None = None) -> float:
    """Measure the audio of a row, in seconds, by its header where that tells.

    Raises:
        SampleError: If the row is malformed, there is no audio, or it cannot be read.
    """
    audio = row_audio(row, policy)
    with sample_errors():
        return audio.duration()


class SampleReader:
    """Reads rows of a data set from any thread.

    Args:
        data: The data set.
        limits: Limits of the duration of recordings.
        policy: Policy for repeating failed requests; by default the policy of the data set.
    """

    def __init__(
        self,
        data: SpeechDataset,
        limits: DurationLimits | None = None,
        *,
        policy: RetryPolicy | None = None,
    ):
        self._policy = policy
        self._data = data
        self._without_audio = data.without_audio()
        self._limits = limits or DurationLimits()
        # Seconds of rows without a duration column, once they were decoded. Dictionaries are thread-safe.
        self._measured: dict[int, float] = {}

    def sample_id(self, index: int) -> str:
        """Return the stable name of a row."""
        return self._without_audio.row(index).sample_id

    def read(self, index: int, *, load_audio: bool = True) -> DecodedExample:
        """Read a row and decode its audio.

        Args:
            index: The row.
            load_audio: False leaves the recording untouched if its duration is known, from the
                ``duration`` column or from an earlier reading; otherwise it is decoded all the same.

        Raises:
            SampleError: If :func:`decode_row` raises it.
            SourceError: If :func:`decode_row` raises it.
        """
        if not load_audio:
            row = self._without_audio.row(index)
            refuse_malformed(row)
            known = self._measured.get(index, row.duration_seconds)
            if known is not None:
                self._limits.check(known)
                return _sample(row, None, known)
        sample = decode_row(self._data.row(index), self._limits, policy=self._policy)
        self._measured[index] = sample.duration_seconds
        return sample


def _sample(row: Example, samples_W: Float[np.ndarray, " W"] | None, seconds: float) -> DecodedExample:
    return DecodedExample(
        index=row.index,
        sample_id=row.sample_id,
        samples_W=samples_W,
        duration_seconds=seconds,
        reference=row.reference,
        label=row.label,
    )


@dataclass(frozen=True, kw_only=True)
class EncodedAudio:
    """The recording of a row, as decoders take it.

    Attributes:
        source: A path, or the contents of a file.
        format: FFmpeg's name of the format, where only the file's name tells it.
        fragment: The part of the file to decode; None for all of it.
        channel: The channel to decode, counted from 0; None for the mean of all.
    """

    source: str | bytes
    format: str | None = None
    fragment: Fragment | None = None
    channel: int | None = None

    def decode(self, *, max_seconds: float | None = None) -> Float[np.ndarray, " W"]:
        """Decode it as ``decode_audio`` does; of a file no more than the part."""
        part = self.fragment
        if part is None:
            return decode_audio(
                self.source, format=self.format, max_seconds=max_seconds, channel=self.channel
            )
        return decode_excerpt(
            self.source, start=part.start, end=part.end, format=self.format, channel=self.channel
        )

    def duration(self) -> float:
        """Return its seconds, as :func:`flax_distil.audio.reading.decoding.audio_duration` does."""
        part = self.fragment
        if part is None:
            return audio_duration(self.source, format=self.format)
        return excerpt_duration(self.source, start=part.start, end=part.end, format=self.format)

    def whole(self) -> "EncodedAudio":
        """Return it as a file of its own: FLAC where it was a part of another."""
        return self if self.fragment is None else EncodedAudio(source=flac_bytes(self.decode()))


def row_audio(row: Example, policy: RetryPolicy | None = None) -> EncodedAudio:
    """Return what decoders take of a row's audio.

    Args:
        row: Row with its audio; if its path is an address, the file is downloaded.
        policy: Policy for repeating failed requests; by default the policy of the row.

    Raises:
        SampleError: If the row is malformed, or there is no audio.
        SourceError: If its server cannot be read from, which says nothing about the sample.
    """
    refuse_malformed(row)
    audio = row.audio
    if audio is None or (audio["bytes"] is None and not audio["path"]):
        raise SampleError(NO_AUDIO, "the row has no audio")
    data = audio["bytes"]
    try:
        path, fragment = parse_fragment(audio["path"] or "")
        if data is None and is_remote(path):
            data = read_bytes(path, policy or row.policy)
    except SourceMissingError as error:
        raise SampleError(UNREADABLE, str(error)) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise SampleError(MALFORMED, str(error)) from error
    if data is None:
        return EncodedAudio(source=path, fragment=fragment, channel=row.channel)
    return EncodedAudio(source=data, format=raw_format(path), fragment=fragment, channel=row.channel)


def refuse_malformed(row: Example) -> None:
    """Raise :class:`SampleError` if a value of the row is not a recording, text or duration."""
    if row.problem is not None:
        raise SampleError(MALFORMED, row.problem)


@contextlib.contextmanager
def sample_errors(limits: DurationLimits | None = None) -> Iterator[None]:
    """Turn every error of a decoder into a :class:`SampleError`.

    Args:
        limits: The limits that the message about a recording that is too long names.

    Raises:
        SampleError: Instead of any of :data:`AUDIO_ERRORS`.
    """
    try:
        yield
    except LongAudioError as error:
        raise (limits or DurationLimits()).too_long(error.length) from error
    except AUDIO_ERRORS as error:
        raise SampleError(error.kind if isinstance(error, AudioError) else UNREADABLE, str(error)) from error
