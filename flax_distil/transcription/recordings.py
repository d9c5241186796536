"""Recordings in, transcripts out: what every way of transcribing has in common, and the simplest one."""

import abc
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, pad_or_trim
from flax_distil.core import Float, InputError
from flax_distil.transcription.results import Transcript
from flax_distil.transcription.short_form import ShortFormTranscriber
from flax_distil.transcription.window_decoder import WindowDecoder

Name = TypeVar("Name")


class RecordingTranscriber(abc.ABC):
    """Transcribes recordings, many at a time.

    Attributes:
        decoder: of the checkpoint.
        batch_size: windows decoded at once, over the devices of this process.
    """

    def __init__(self, decoder: WindowDecoder, *, batch_size: int):
        self.decoder = decoder
        self.batch_size = batch_size

    def warm_up(self) -> float:
        """Compile and return the seconds it took."""
        return self.decoder.warm_up(self.batch_size)

    @abc.abstractmethod
    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " W"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """Yield the transcript of each recording as it is finished, beside its name.

        Recordings are taken from the iterator when there is room for them. A transcript does not
        depend on the other recordings; their order may.

        Args:
            recordings: a name of any kind, and 16 kHz samples in [-1, 1].
        """


class ShortRecordings(RecordingTranscriber):
    """Recordings of at most 30 s, a window each."""

    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " W"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``.

        Raises:
            InputError: if a recording is longer.
        """
        transcriber = ShortFormTranscriber(self.decoder)
        names: list[Name] = []
        samples_BW = np.zeros((self.batch_size, CHUNK_SAMPLES), np.float32)
        for name, samples_W in recordings:
            if len(samples_W) > CHUNK_SAMPLES:
                raise InputError(f"{name!r} is longer than 30 s: use mode chunked or sequential")
            samples_BW[len(names)] = pad_or_trim(samples_W)
            names.append(name)
            if len(names) == self.batch_size:
                yield from zip(names, transcriber.transcribe(samples_BW), strict=True)
                names = []
        if names:
            samples_BW[len(names) :] = samples_BW[0]  # in silence a model may talk to its limit
            yield from zip(names, transcriber.transcribe(samples_BW)[: len(names)], strict=True)
