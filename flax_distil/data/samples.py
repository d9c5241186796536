"""From one row to one decoded sample, or to the reason why there is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from flax_distil.audio import (
    CHUNK_SECONDS,
    SAMPLING_RATE,
    AudioError,
    audio_duration,
    decode_audio,
    raw_format,
)
from flax_distil.core import Float
from flax_distil.data.rows import SpeechRow
from flax_distil.data.speech_data import SpeechData

T = TypeVar("T")

NO_AUDIO = "without audio"
UNREADABLE = "with unreadable audio"
TOO_SHORT = "too short"
TOO_LONG = "too long"
NO_LABEL = "without label"
LABEL_TOO_LONG = "with too long a label"


class SampleError(Exception):
    """Why one row gives no sample.

    Args:
        kind: A few words to count by, one of the constants of this file.
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
            limit = "at most" if self.allow_max else "less than"
            raise SampleError(TOO_LONG, f"{seconds:.2f} s of audio: {limit} {self.max_seconds:g} s are taken")


def decode_row(row: SpeechRow, limits: DurationLimits) -> Sample:
    """Decode the audio of a row.

    Raises:
        SampleError: if there is no audio, it cannot be decoded, or its duration is out of bounds.
    """
    samples_W = _read_audio(row.audio, decode_audio)
    seconds = len(samples_W) / SAMPLING_RATE
    limits.check(seconds)
    return _sample(row, samples_W, seconds)


def row_duration(row: SpeechRow) -> float:
    """Measure the audio of a row, in seconds, by its header where that tells.

    Raises:
        SampleError: if there is no audio, or it cannot be read.
    """
    return _read_audio(row.audio, audio_duration)


class SampleReader:
    """Reads rows of a data set from any thread.

    Args:
        data: The data set.
        limits: Which recordings are taken.
    """

    def __init__(self, data: SpeechData, limits: DurationLimits | None = None):
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
        """
        if not load_audio:
            row = self._without_audio.row(index)
            known = self._measured.get(index, row.duration_seconds)
            if known is not None:
                self._limits.check(known)
                return _sample(row, None, known)
        sample = decode_row(self._data.row(index), self._limits)
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


def _read_audio(audio: Mapping[str, Any] | None, read: Callable[..., T]) -> T:
    """Give a row's recording to a function of ``flax_distil.audio``."""
    if audio is None or (audio["bytes"] is None and not audio["path"]):
        raise SampleError(NO_AUDIO, "the row has no audio")
    try:
        if audio["bytes"] is None:
            return read(audio["path"])
        return read(audio["bytes"], format=raw_format(audio["path"] or ""))
    except (AudioError, OSError, ValueError, RuntimeError, LookupError) as error:
        # Wider than AudioError: no damaged file may end a run, whatever its decoder trips over.
        raise SampleError(UNREADABLE, str(error)) from error
