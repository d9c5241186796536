"""Which windows are decoded together: those of similar length, in turn."""

import collections
from typing import Any, NamedTuple, Protocol, runtime_checkable

from flax_distil.audio.constants import CHUNK_FRAMES
from flax_distil.transcription.results import TranscribedSegment, Transcript
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND

LENGTH_RATIO = 4
"""Windows whose lengths differ by more are not decoded together, because all wait for the longest one."""

MOST_SECONDS = 4 * 3600.0
"""Total length of the recordings in the queue, unless it is one; their features take 115 MB per hour."""


@runtime_checkable
class RecordingInProgress(Protocol):
    """A recording that is being transcribed, in parts that are decoded in rows of their own."""

    @property
    def parts(self) -> tuple[SequentialRecording, ...]:
        """All parts in order, including finished ones."""

    @property
    def frames(self) -> int:
        """Its length in frames of 10 ms."""

    @property
    def is_finished(self) -> bool:
        """Whether no part has a window left."""

    def take_segments(self) -> list[TranscribedSegment]:
        """Return segments that no later window can change, once each."""

    def transcript(self) -> Transcript:
        """Return the transcript, when it is finished."""


class Row(NamedTuple):
    """A part of a recording, and the recording."""

    name: Any
    recording: RecordingInProgress
    part: SequentialRecording


class WorkQueue:
    """Parts of recordings that wait for their next window to be decoded, the longest waiting first.

    A batch is made of the part that has waited longest and others of windows as long, to within a factor of
    four, because a short one would wait while the tokens of a long one are decoded.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._rows: collections.deque[Row] = collections.deque()
        self._frames = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def has_room(self) -> bool:
        """Whether another recording could fill the next batch."""
        if not self._rows:
            return True
        if self._frames >= MOST_SECONDS * FRAMES_PER_SECOND or len(self._rows) >= 2 * self._batch_size:
            return False
        alike = sum(_kind(row) == _kind(self._rows[0]) for row in self._rows)
        return alike < self._batch_size

    def add(self, name: Any, recording: RecordingInProgress) -> None:
        """Add a recording and the parts of it that have something to decode."""
        self._frames += recording.frames
        self._rows.extend(Row(name, recording, part) for part in recording.parts if not part.is_finished)

    def take_batch(self) -> list[Row]:
        """Remove and return the rows of the next batch, at least one and ``batch_size`` at most."""
        batch: list[Row] = []
        for row in self._rows:
            if len(batch) < self._batch_size and _kind(row) == _kind(self._rows[0]) and _ready(row, batch):
                batch.append(row)
        batch = batch or [self._rows[0]]
        taken = set(map(id, batch))
        self._rows = collections.deque(row for row in self._rows if id(row) not in taken)
        return batch

    def put_back(self, row: Row) -> None:
        """Let a row of a batch wait for its next window, if it has one."""
        if not row.part.is_finished:
            self._rows.append(row)

    def forget(self, recording: RecordingInProgress) -> None:
        """Make room for others: a recording is finished."""
        self._frames -= recording.frames


def first_part(recording: RecordingInProgress) -> SequentialRecording:
    """Return the first part with something to decode: the language is that of its first window."""
    return next((part for part in recording.parts if part.has_windows), recording.parts[0])


def _ready(row: Row, batch: list[Row]) -> bool:
    """Say whether the language of a part is known, or will be when its batch has been encoded."""
    if row.part.language is not None:
        return True
    first = first_part(row.recording)
    return row.part is first or any(other.part is first for other in batch)


def _kind(row: Row) -> int:
    """Return how often a window of 30 s is divided by four to be no longer than this one's."""
    kind, frames = 0, CHUNK_FRAMES // LENGTH_RATIO
    while row.part.window_frames <= frames and frames:
        kind, frames = kind + 1, frames // LENGTH_RATIO
    return kind
