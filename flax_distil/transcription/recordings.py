"""Recordings in, transcripts out: what every way of transcribing has in common, and the simplest one."""

import abc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, pad_or_trim
from flax_distil.core import Float, InputError, one_ahead
from flax_distil.transcription.results import Transcript
from flax_distil.transcription.short_form import DispatchedBatch, ShortFormTranscriber
from flax_distil.transcription.window_decoder import WindowDecoder

Name = TypeVar("Name")


class RecordingTranscriber(abc.ABC):
    """Transcribes recordings, many at a time.

    Attributes:
        decoder: of the checkpoint.
        batch_size: windows decoded at once, over the devices of this process.
    """

    def __init__(self, decoder: WindowDecoder, *, batch_size: int):
        """Bind a decoder; compiles nothing.

        Raises:
            InputError: if its devices are of several processes, which would have to take as many steps.
        """
        if decoder.runner.shard_count > 1:
            raise InputError(
                f"the runner spans {decoder.runner.shard_count} processes, but each transcribes its own "
                "recordings: give every process a runner over its own devices"
            )
        self.decoder = decoder
        self.batch_size = batch_size

    def warm_up(self) -> float:
        """Compile and return the seconds it took."""
        return self.decoder.warm_up(self.batch_size)

    @abc.abstractmethod
    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " _"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """Yield the transcript of each recording as it is finished, beside its name.

        Recordings are taken from the iterator when there is room for them. A transcript does not
        depend on the other recordings; their order may.

        Args:
            recordings: a name of any kind, and 16 kHz samples in [-1, 1].
        """


class ShortRecordings(RecordingTranscriber):
    """Recordings of at most 30 s, a window each.

    The next batch is sent before the last one is waited for.
    """

    def __init__(self, decoder: WindowDecoder, *, batch_size: int):
        """See ``RecordingTranscriber``."""
        super().__init__(decoder, batch_size=batch_size)
        self._transcriber = ShortFormTranscriber(decoder)

    def warm_up(self) -> float:
        """Compile and return the seconds it took."""
        return self._transcriber.warm_up(self.batch_size)

    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " _"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        Raises:
            InputError: if a recording is longer.
        """
        for names, sent in one_ahead(self._dispatched(recordings)):
            yield from zip(names, self._transcriber.collect(sent)[: len(names)], strict=True)

    def _dispatched(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " _"]]]
    ) -> Iterator[tuple[list[Name], DispatchedBatch]]:
        source = iter(recordings)
        while batch := list(itertools.islice(source, self.batch_size)):
            yield [name for name, _ in batch], self._transcriber.dispatch(self._samples(batch))

    def _samples(self, batch: Sequence[tuple[Any, Float[np.ndarray, " _"]]]) -> Float[np.ndarray, "B W"]:
        samples_BW = np.zeros((self.batch_size, CHUNK_SAMPLES), np.float32)
        for row, (name, samples_W) in enumerate(batch):
            if len(samples_W) > CHUNK_SAMPLES:
                raise InputError(f"{name!r} is longer than 30 s: use mode chunked or sequential")
            samples_BW[row] = pad_or_trim(samples_W)
        samples_BW[len(batch) :] = samples_BW[0]  # in silence a model may talk to its limit
        return samples_BW
