"""Recordings in, transcripts out: what all ways of transcribing have in common."""

import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.results import TranscribedSegment, Transcript

Name = TypeVar("Name")

Recordings = Iterable[tuple[Name, Float[np.ndarray, " _"]] | None]
"""A name of any kind, and 16 kHz samples in [-1, 1]. None means that the next one is not there yet: what was
taken so far is then transcribed without waiting for more.
"""

OnSegment = Callable[[Any, TranscribedSegment], None]
"""Called with the name of a recording and a segment, as soon as no later window can change it."""


SORTED_BATCHES, MOST_SORTED = 4, 64
"""Recordings of so many batches, but no more recordings, or one batch, are ordered by their lengths. All of
them are taken before the first is sent.
"""


class RecordingTranscriber(abc.ABC):
    """Transcribes recordings, many at a time.

    Batches have as many rows as there is work for: a power of two times the devices, up to ``batch_size``.

    Attributes:
        generator: The checkpoint.
        batch_size: Maximum number of windows decoded at once, over the devices of this process.
    """

    def __init__(self, generator: WhisperGenerator, *, batch_size: int | None):
        """Bind a generator; compiles nothing.

        Args:
            generator: The checkpoint.
            batch_size: Maximum number of windows decoded at once; None if the caller makes all batches.

        Raises:
            InputError: If the devices belong to several processes, which would have to take the same number
                of steps, or if the batch cannot be divided over the devices.
        """
        partitioner = generator.partitioner
        self.generator, self.batch_size = generator, batch_size or partitioner.local_batch_shards
        if batch_size is None:
            return
        if partitioner.shard_count > 1:
            raise InputError(
                f"the partitioner spans {partitioner.shard_count} processes, but each transcribes its own "
                "recordings: give every process a partitioner over its own devices"
            )
        partitioner.check_rows("a batch of recordings", batch_size)

    def rows_for(self, windows: int) -> int:
        """Return the number of rows of a batch with this many windows, at least one."""
        rows = self.generator.partitioner.local_batch_shards
        while rows < windows:
            rows *= 2
        return min(rows, self.batch_size)

    @property
    def batch_sizes(self) -> list[int]:
        """The numbers of rows that batches may have; functions are compiled for each."""
        return sorted({self.rows_for(windows) for windows in range(1, self.batch_size + 1)})

    @abc.abstractmethod
    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""

    @abc.abstractmethod
    def transcribe_recordings(
        self, recordings: "Recordings[Name]", *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """Yield the transcript of each recording as it is finished, beside its name.

        Recordings are taken from the iterator when there is room for them. A transcript does not
        depend on the other recordings; their order may.

        Args:
            recordings: Names and samples.
            on_segment: Called with each segment while its recording is still being transcribed.
        """


def in_batches(
    recordings: "Recordings[Name]", size: int
) -> Iterator[list[tuple[Name, Float[np.ndarray, " _"]]]]:
    """Yield recordings in batches of this size, or smaller ones where the next recording is not there yet.

    An empty batch means that none is there for now: what is under way is to be finished.
    """
    batch = []
    for recording in recordings:
        if recording is not None:
            batch.append(recording)
        if recording is None or len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def longest_first(
    recordings: "Recordings[Name]", size: int
) -> Iterator[list[tuple[int, tuple[Name, Float[np.ndarray, " _"]]]]]:
    """Yield recordings in batches of this size, or smaller ones where the next recording is not there yet.

    Of a few batches the longest recordings come first, because they are likely to have the most tokens: what
    begins last should end soon, when no other window is there to take a row of the decoder.

    Returns:
        Recordings and their numbers, counted from 0 as they come. An empty batch means that no other is there
        for now: what is under way is to be finished.
    """
    taken: list[tuple[int, tuple[Name, Any]]] = []

    def batches() -> Iterator[list[tuple[int, tuple[Name, Any]]]]:
        taken.sort(key=lambda numbered: -len(numbered[1][1]))
        yield from (taken[start : start + size] for start in range(0, len(taken), size))
        taken.clear()

    count, sorted_count = 0, max(1, min(SORTED_BATCHES, MOST_SORTED // size)) * size
    for recording in recordings:
        if recording is None:
            yield from batches()
            yield []
            continue
        taken.append((count, recording))
        count += 1
        if len(taken) == sorted_count:
            yield from batches()
    yield from batches()


def tell_segments(on_segment: OnSegment | None, name: Any, segments: Iterable[TranscribedSegment]) -> None:
    """Call ``on_segment``, if it is given, with each segment."""
    if on_segment is not None:
        for segment in segments:
            on_segment(name, segment)
