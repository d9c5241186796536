"""Recordings in, transcripts out: what every way of transcribing has in common, and the simplest one."""

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.results import TranscribedSegment, Transcript
from flax_distil.transcription.short_form import PendingTranscripts, ShortFormTranscriber

Name = TypeVar("Name")

Recordings = Iterable[tuple[Name, Float[np.ndarray, " _"]] | None]
"""A name of any kind, and 16 kHz samples in [-1, 1]. None says that the next one is not there yet: what was
taken so far is then transcribed without waiting for more.
"""

OnSegment = Callable[[Any, TranscribedSegment], None]
"""Called with the name of a recording and a segment, as soon as no later window can change it."""


class RecordingTranscriber(abc.ABC):
    """Transcribes recordings, many at a time.

    Batches have as many rows as there is work for: a power of two times the devices, up to ``batch_size``.

    Attributes:
        generator: of the checkpoint.
        batch_size: windows decoded at once at most, over the devices of this process.
    """

    def __init__(self, generator: WhisperGenerator, *, batch_size: int):
        """Bind a decoder; compiles nothing.

        Raises:
            InputError: if its devices are of several processes, which would have to take as many steps, or
                the batch cannot be divided over them.
        """
        if generator.partitioner.shard_count > 1:
            raise InputError(
                f"the partitioner spans {generator.partitioner.shard_count} processes, but each transcribes "
                "its own recordings: give every process a partitioner over its own devices"
            )
        generator.partitioner.check_rows("a batch of recordings", batch_size)
        self.generator = generator
        self.batch_size = batch_size

    def rows_for(self, windows: int) -> int:
        """Return the rows of a batch of so many windows, at least one."""
        rows = self.generator.partitioner.local_batch_shards
        while rows < windows:
            rows *= 2
        return min(rows, self.batch_size)

    @property
    def batch_sizes(self) -> list[int]:
        """The rows that batches may have; each compiles programs of its own."""
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
            recordings: names and samples.
            on_segment: told of each segment while its recording is still being transcribed.
        """


class ShortRecordings(RecordingTranscriber):
    """Recordings of at most 30 s, a window each.

    The next batch is sent before the last one is waited for.
    """

    def __init__(self, generator: WhisperGenerator, *, batch_size: int):
        """See ``RecordingTranscriber``."""
        super().__init__(generator, batch_size=batch_size)
        self._transcriber = ShortFormTranscriber(generator)

    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""
        return sum(map(self._transcriber.warm_up, self.batch_sizes))

    def transcribe_recordings(
        self, recordings: "Recordings[Name]", *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        Raises:
            InputError: if a recording is longer.
        """
        sent: tuple[list[Name], PendingTranscripts] | None = None
        for batch in in_batches(recordings, self.batch_size):
            dispatched = ([name for name, _ in batch], self._dispatch(batch)) if batch else None
            if sent is not None:
                yield from self._collect(*sent, on_segment)
            sent = dispatched
        if sent is not None:
            yield from self._collect(*sent, on_segment)

    def _collect(
        self, names: list[Name], sent: PendingTranscripts, on_segment: OnSegment | None
    ) -> Iterator[tuple[Name, Transcript]]:
        transcripts = self._transcriber.collect(sent)[: len(names)]
        for name, transcript in zip(names, transcripts, strict=True):
            tell_segments(on_segment, name, transcript.segments)
            yield name, transcript

    def _dispatch(self, batch: Sequence[tuple[Any, Float[np.ndarray, " _"]]]) -> PendingTranscripts:
        rows = self.rows_for(len(batch))
        window = self.generator.config.window_samples
        samples_BW = np.zeros((rows, window), np.float32)
        for row, (name, samples_W) in enumerate(batch):
            if len(samples_W) > window:
                seconds = self.generator.config.window_seconds
                raise InputError(f"{name!r} is longer than {seconds:g} s: use mode chunked or sequential")
            samples_BW[row] = pad_or_trim(samples_W, length=window)
        samples_BW[len(batch) :] = samples_BW[0]  # in silence a model may talk to its limit
        frames = [len(samples_W) // HOP_LENGTH for _, samples_W in batch]
        return self._transcriber.dispatch(samples_BW, frames=[*frames, *frames[:1] * (rows - len(batch))])


def in_batches(
    recordings: "Recordings[Name]", size: int
) -> Iterator[list[tuple[Name, Float[np.ndarray, " _"]]]]:
    """Yield recordings in batches of so many, of fewer where the next one is not there yet.

    An empty batch says that none is there at all for now: what is under way is to be finished.
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


def tell_segments(on_segment: OnSegment | None, name: Any, segments: Iterable[TranscribedSegment]) -> None:
    """Tell of segments, if anybody listens."""
    if on_segment is not None:
        for segment in segments:
            on_segment(name, segment)
