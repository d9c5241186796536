"""From one row to one decoded sample, or to the reason why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_distil.audio import (
    CHUNK_SECONDS,
    SAMPLING_RATE,
    AudioError,
    audio_duration,
    decode_audio,
    raw_format,
)
from flax_distil.audio.decoding import TOO_LONG, UNREADABLE, LongAudioError
from flax_distil.core import Float
from flax_distil.data.reading.remote import is_remote, read_bytes
from flax_distil.data.reading.retries import DEFAULT_POLICY, RetryPolicy, SourceMissingError
from flax_distil.data.rows import SpeechRow
from flax_distil.data.speech_data import SpeechData

NO_AUDIO = "without audio"
NO_SPEECH = "without speech"
TOO_SHORT = "too short"
NO_LABEL = "without label"
LABEL_TOO_LONG = "with too long a label"

AUDIO_ERRORS = (AudioError, OSError, ValueError, RuntimeError, LookupError)
"""Wider than AudioError: no damaged file may end a run, whatever its decoder trips over."""


class SampleError(Exception):
    """Why one row gives no sample.

    Args:
        kind: A few words to count by, one of the constants of this file or of ``audio/decoding.py``.
        reason: The whole reason, for the list at the end of a run.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row, decoded.

    Attributes:
        index: Its row in the data set.
        sample_id: Its stable name.
        samples_W: Mono samples at 16 kHz in [-1, 1]; None when audio was not asked for.
        duration_seconds: Length of the recording.
        reference: Reference text, None if there is none.
        label: Text to train on: the pseudo-label, or else the reference.
    """

    index: int
    sample_id: str
    samples_W: Float[np.ndarray, " W"] | None
    duration_seconds: float
    reference: str | None
    label: str | None


@dataclass(frozen=True, kw_only=True)
class DurationLimits:
    """Which recordings are taken.

    Attributes:
        min_seconds: Recordings must be longer than this.
        max_seconds: Recordings must be shorter than this, or as long if ``allow_max``.
        allow_max: Whether exactly ``max_seconds`` is allowed.
    """

    min_seconds: float = 0.0
    max_seconds: float = float(CHUNK_SECONDS)
    allow_max: bool = True

    def check(self, seconds: float) -> None:
        """Raise :class:`SampleError` unless a recording of this length is taken."""
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


def decode_row(row: SpeechRow, limits: DurationLimits, *, policy: RetryPolicy = DEFAULT_POLICY) -> Sample:
    """Decode the audio of a row.

    Args:
        row: The row; an address for a path is fetched.
        limits: Which recordings are taken.
        policy: When to ask a server again.

    Raises:
        SampleError: if there is no audio, it cannot be decoded, or its duration is out of bounds.
        SourceError: if its server cannot be read from, which says nothing about the sample.
    """
    samples_W = _decode(row.audio, limits, policy)
    seconds = len(samples_W) / SAMPLING_RATE
    limits.check(seconds)
    return _sample(row, samples_W, seconds)


def row_duration(row: SpeechRow, policy: RetryPolicy = DEFAULT_POLICY) -> float:
    """Measure the audio of a row, in seconds, by its header where that tells.

    Raises:
        SampleError: if there is no audio, or it cannot be read.
    """
    source, format = encoded_audio(row.audio, policy)
    try:
        return audio_duration(source, format=format)
    except AUDIO_ERRORS as error:
        raise audio_failure(error) from error


class SampleReader:
    """Reads rows of a data set from any thread.

    Args:
        data: The data set.
        limits: Which recordings are taken.
        policy: When to ask a server again for a recording.
    """

    def __init__(
        self,
        data: SpeechData,
        limits: DurationLimits | None = None,
        *,
        policy: RetryPolicy = DEFAULT_POLICY,
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

    def read(self, index: int, *, load_audio: bool = True) -> Sample:
        """Read a row and decode its audio.

        Args:
            index: The row.
            load_audio: False leaves the recording untouched if its duration is known, from the
                ``duration`` column or from an earlier reading; otherwise it is decoded all the same.

        Raises:
            SampleError: as :func:`decode_row`.
            SourceError: as :func:`decode_row`.
        """
        if not load_audio:
            row = self._without_audio.row(index)
            known = self._measured.get(index, row.duration_seconds)
            if known is not None:
                self._limits.check(known)
                return _sample(row, None, known)
        sample = decode_row(self._data.row(index), self._limits, policy=self._policy)
        self._measured[index] = sample.duration_seconds
        return sample


def _sample(row: SpeechRow, samples_W: Float[np.ndarray, " W"] | None, seconds: float) -> Sample:
    return Sample(
        index=row.index,
        sample_id=row.sample_id,
        samples_W=samples_W,
        duration_seconds=seconds,
        reference=row.reference,
        label=row.label,
    )


def _decode(
    audio: Mapping[str, Any] | None, limits: DurationLimits, policy: RetryPolicy
) -> Float[np.ndarray, " W"]:
    source, format = encoded_audio(audio, policy)
    try:
        return decode_audio(source, format=format, max_seconds=limits.max_seconds)
    except LongAudioError as error:
        raise limits.too_long(error.length) from error
    except AUDIO_ERRORS as error:
        raise audio_failure(error) from error


def encoded_audio(
    audio: Mapping[str, Any] | None, policy: RetryPolicy = DEFAULT_POLICY
) -> tuple[str | bytes, str | None]:
    """Return what decoders take of a row's audio: path or bytes, and the format where only the name tells.

    Args:
        audio: ``{"bytes", "path"}``; an address for a path is fetched.
        policy: When to ask its server again.

    Raises:
        SampleError: if there is no audio.
        SourceError: if its server cannot be read from, which says nothing about the sample.
    """
    if audio is None or (audio["bytes"] is None and not audio["path"]):
        raise SampleError(NO_AUDIO, "the row has no audio")
    data = audio["bytes"]
    if data is None and is_remote(audio["path"]):
        try:
            data = read_bytes(audio["path"], policy)
        except SourceMissingError as error:
            raise SampleError(UNREADABLE, str(error)) from error
    return (audio["path"], None) if data is None else (data, raw_format(audio["path"] or ""))


def audio_failure(error: Exception) -> SampleError:
    """Say by what kind a failure to decode counts, one of :data:`AUDIO_ERRORS`."""
    return SampleError(error.kind if isinstance(error, AudioError) else UNREADABLE, str(error))
