"""Recordings in, transcripts out: what every way of transcribing has in common, and the simplest one."""

import abc
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, HOP_LENGTH, pad_or_trim
from flax_distil.core import Float, InputError
from flax_distil.transcription.results import AlignedWord, Transcript
from flax_distil.transcription.short_form import DispatchedBatch, ShortFormTranscriber
from flax_distil.transcription.window_decoder import States, WindowDecoder
from flax_distil.transcription.word_timestamps import AlignmentRequest, WordAligner, attach_words

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
        """Bind a decoder; compiles nothing."""
        super().__init__(decoder, batch_size=batch_size)
        self._transcriber = ShortFormTranscriber(decoder)
        self._aligner = WordAligner(decoder) if decoder.options.word_timestamps else None

    def warm_up(self) -> float:
        """Compile and return the seconds it took."""
        seconds = self._transcriber.warm_up(self.batch_size)
        return seconds if self._aligner is None else seconds + self._aligner.warm_up(self.batch_size)

    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " _"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        Raises:
            InputError: if a recording is longer.
        """
        waiting: _ShortBatch | None = None
        source = iter(recordings)
        while batch := list(itertools.islice(source, self.batch_size)):
            sent = self._dispatch(batch)
            if waiting is not None:
                yield from self._collect(waiting)
            waiting = sent
        if waiting is not None:
            yield from self._collect(waiting)

    def _dispatch(self, batch: Sequence[tuple[Any, Float[np.ndarray, " _"]]]) -> "_ShortBatch":
        samples_BW = np.zeros((self.batch_size, CHUNK_SAMPLES), np.float32)
        for row, (name, samples_W) in enumerate(batch):
            if len(samples_W) > CHUNK_SAMPLES:
                raise InputError(f"{name!r} is longer than 30 s: use mode chunked or sequential")
            samples_BW[row] = pad_or_trim(samples_W)
        samples_BW[len(batch) :] = samples_BW[0]  # in silence a model may talk to its limit
        states = self.decoder.encode_samples(samples_BW)
        return _ShortBatch(
            names=[name for name, _ in batch],
            frames=[len(samples_W) // HOP_LENGTH for _, samples_W in batch],
            states=states,
            sent=self._transcriber.dispatch_states(states, rows=self.batch_size),
        )

    def _collect(self, batch: "_ShortBatch") -> Iterator[tuple[Any, Transcript]]:
        transcripts = self._transcriber.collect(batch.sent)[: len(batch.names)]
        if self._aligner is not None:
            requests: list[AlignmentRequest | None] = [None] * self.batch_size
            for row, (transcript, frames) in enumerate(zip(transcripts, batch.frames, strict=True)):
                tokens = tuple(token for segment in transcript.segments for token in segment.tokens)
                if tokens:
                    requests[row] = AlignmentRequest(
                        tokens=tokens, language=transcript.language, frames=frames
                    )
            if any(requests):
                words = self._aligner.align(batch.states, requests)
                transcripts = [
                    with_words(transcript, found or ())
                    for transcript, found in zip(transcripts, words, strict=False)
                ]
        yield from zip(batch.names, transcripts, strict=True)


class _ShortBatch(NamedTuple):
    names: list[Any]
    frames: list[int]
    """Of 10 ms, of each recording."""
    states: States
    sent: DispatchedBatch


def with_words(transcript: Transcript, words: Sequence[AlignedWord]) -> Transcript:
    """Return a transcript whose segments have words.

    Args:
        transcript: with segments.
        words: of all their tokens; seconds from the beginning of the recording.
    """
    segments, _ = attach_words(transcript.segments, words, last_speech_timestamp=0.0, offset=0.0)
    return dataclasses.replace(transcript, segments=segments)
