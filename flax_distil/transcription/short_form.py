"""Recordings of at most 30 s, in batches: one window each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio import CHUNK_FRAMES
from flax_distil.core import Float
from flax_distil.transcription.results import Transcript, window_transcript
from flax_distil.transcription.window_decoder import DispatchedWindows, States, WindowDecoder, WindowRequest
from flax_distil.transcription.word_timestamps import WordAligner, add_words, content_frames


class DispatchedBatch(NamedTuple):
    """A batch the device may still be working on; see ``ShortFormTranscriber.collect``."""

    windows: DispatchedWindows
    languages: list[str]
    probabilities: list[Mapping[str, float] | None]
    states: States
    frames: list[int]


class ShortFormTranscriber:
    """Transcribes batches of recordings of at most 30 s.

    Attributes:
        decoder: of the checkpoint.
    """

    def __init__(self, decoder: WindowDecoder):
        self.decoder = decoder
        self._aligner = WordAligner(decoder) if decoder.options.word_timestamps else None

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size and return the seconds it took."""
        words = self._aligner.warm_up(batch_size) if self._aligner else 0.0
        return words + self.decoder.warm_up(batch_size)

    def transcribe(
        self, samples_BW: Float[np.ndarray, "B W"], *, stop_at_once: bool = False
    ) -> list[Transcript]:
        """Transcribe a batch; ``stop_at_once`` emits one token, to compile and no more."""
        return self.collect(self.dispatch(samples_BW, stop_at_once=stop_at_once))

    def dispatch(
        self, samples_BW: Float[np.ndarray, "B W"], *, stop_at_once: bool = False
    ) -> DispatchedBatch:
        """Send this process's 16 kHz windows of 30 s to its devices and return at once.

        Only where the language must be detected first does this wait for the encoder.
        """
        states = self.decoder.encode_samples(samples_BW)
        frames = content_frames(samples_BW) if self._aligner else None
        return self.dispatch_states(states, rows=len(samples_BW), stop_at_once=stop_at_once, frames=frames)

    def dispatch_states(
        self,
        states: States,
        *,
        rows: int,
        stop_at_once: bool = False,
        frames: Sequence[int] | None = None,
    ) -> DispatchedBatch:
        """Do the same from encoder states already on the devices.

        Args:
            states: rows of all processes.
            rows: how many of them are this process's.
            stop_at_once: emit one token, to compile and no more.
            frames: of 10 ms with content in each row, where words are looked for; by default all.
        """
        languages, probabilities = self._languages(states, rows)
        prompts = self.decoder.prompts
        limit = 1 if stop_at_once else None
        requests = [
            WindowRequest(prompt=prompts.build(language, prompts.initial), limit=limit)
            for language in languages
        ]
        return DispatchedBatch(
            self.decoder.dispatch(states, requests),
            languages,
            probabilities,
            states,
            list(frames or [CHUNK_FRAMES] * rows),
        )

    def collect(self, batch: DispatchedBatch) -> list[Transcript]:
        """Wait for a dispatched batch and return its transcripts in order."""
        found = self.decoder.collect(batch.windows)
        transcripts = [
            window_transcript(
                result,
                self.decoder.tokenizer,
                language=language,
                language_probabilities=probabilities,
                with_timestamps=self.decoder.options.return_timestamps,
            )
            for result, language, probabilities in zip(
                found, batch.languages, batch.probabilities, strict=True
            )
            if result is not None
        ]
        return (
            add_words(self._aligner, batch.states, transcripts, batch.frames)
            if self._aligner
            else transcripts
        )

    def _languages(self, states: States, rows: int) -> tuple[list[str], list[Any]]:
        special = self.decoder.tokenizer.special
        nothing: list[Any] = [None] * rows
        if not special.is_multilingual:
            return ["en"] * rows, nothing
        if self.decoder.options.language is not None:
            return [self.decoder.options.language] * rows, nothing
        codes = list(special.languages)
        found = [
            dict(zip(codes, row, strict=True)) for row in self.decoder.language_probabilities(states).tolist()
        ]
        return [max(row, key=row.__getitem__) for row in found], found
