"""From one row to one decoded sample, or to the reason why there is none."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_distil.audio import CHUNK_SECONDS, SAMPLING_RATE, AudioError, decode_audio, raw_format
from flax_distil.core import Float
from flax_distil.data.speech_data import DURATION_COLUMN, ID_COLUMN, SpeechData

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


class SampleReader:
    """Reads rows of a data set from any thread.

    Args:
        data: The data set.
        min_duration_seconds: Recordings must be longer than this.
        max_duration_seconds: Recordings must be shorter than this, or as long if ``allow_max``.
        allow_max: Whether exactly ``max_duration_seconds`` is allowed.
    """

    def __init__(
        self,
        data: SpeechData,
        *,
        min_duration_seconds: float = 0.0,
        max_duration_seconds: float = float(CHUNK_SECONDS),
        allow_max: bool = True,
    ):
        self._data = data
        self._min = min_duration_seconds
        self._max = max_duration_seconds
        self._allow_max = allow_max
        columns = [ID_COLUMN, data.text_column, data.label_column, DURATION_COLUMN]
        present = [name for name in dict.fromkeys(columns) if name is not None and data.has_column(name)]
        self._texts = data.table.select_columns(present)
        self._rows = data.table.select_columns([*present, data.audio_column])
        # Seconds of rows without a duration column, once they were decoded. Dictionaries are thread-safe.
        self._measured: dict[int, float] = {}

    def sample_id(self, index: int) -> str:
        """Return the stable name of a row."""
        return str(self._texts[index][ID_COLUMN])

    def read(self, index: int, *, load_audio: bool = True) -> Sample:
        """Read a row and decode its audio.

        Args:
            index: The row.
            load_audio: False leaves the recording untouched if its duration is known, from the
                ``duration`` column or from an earlier reading; otherwise it is decoded all the same.

        Raises:
            SampleError: if there is no audio, it cannot be decoded, or its duration is out of bounds.
        """
        known = self._texts[index].get(DURATION_COLUMN) if not load_audio else None
        known = self._measured.get(index) if known is None else known
        if load_audio or known is None:
            row = self._rows[index]
            samples_W = self._decode(row[self._data.audio_column])
            seconds = len(samples_W) / SAMPLING_RATE
            self._measured[index] = seconds
        else:
            row, samples_W, seconds = self._texts[index], None, float(known)
        self._check_duration(seconds)
        return Sample(
            index=index,
            sample_id=str(row[ID_COLUMN]),
            samples_W=samples_W,
            duration_seconds=seconds,
            reference=_text(row, self._data.text_column),
            label=_text(row, self._data.label_column or self._data.text_column),
        )

    def _decode(self, audio: Any) -> Float[np.ndarray, " W"]:
        if audio is None or (audio["bytes"] is None and not audio["path"]):
            raise SampleError(NO_AUDIO, "the row has no audio")
        try:
            if audio["bytes"] is None:
                return decode_audio(audio["path"])
            return decode_audio(audio["bytes"], format=raw_format(audio["path"] or ""))
        except (AudioError, OSError, ValueError, RuntimeError, LookupError) as error:
            # Wider than AudioError: no damaged file may end a run, whatever its decoder trips over.
            raise SampleError(UNREADABLE, str(error)) from error

    def _check_duration(self, seconds: float) -> None:
        if seconds <= self._min:
            raise SampleError(TOO_SHORT, f"{seconds:.2f} s of audio: more than {self._min:g} s are needed")
        if seconds > self._max or (seconds == self._max and not self._allow_max):
            limit = "at most" if self._allow_max else "less than"
            raise SampleError(TOO_LONG, f"{seconds:.2f} s of audio: {limit} {self._max:g} s are taken")


def _text(row: dict[str, Any], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    return None if value is None else str(value)
