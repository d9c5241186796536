"""Recordings of at most 30 s, in batches: one window each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flax_distil.core import Float
from flax_distil.transcription.results import Transcript, window_transcript
from flax_distil.transcription.window_decoder import DispatchedWindows, States, WindowDecoder, WindowRequest


class DispatchedBatch(NamedTuple):
    """A batch the device may still be working on; see ``ShortFormTranscriber.collect``."""

    windows: DispatchedWindows
    languages: list[str]
    probabilities: list[Mapping[str, float] | None]


class ShortFormTranscriber:
    """Transcribes batches of recordings of at most 30 s.

    Attributes:
        decoder: of the checkpoint.
    """

    def __init__(self, decoder: WindowDecoder):
        self.decoder = decoder

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size and return the seconds it took."""
        return self.decoder.warm_up(batch_size)

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
        return self.dispatch_states(states, rows=len(samples_BW), stop_at_once=stop_at_once)

    def dispatch_states(self, states: States, *, rows: int, stop_at_once: bool = False) -> DispatchedBatch:
        """Do the same from encoder states already on the devices.

        Args:
            states: rows of all processes.
            rows: how many of them are this process's.
            stop_at_once: emit one token, to compile and no more.
        """
        languages, probabilities = self._languages(states, rows)
        prompts = self.decoder.prompts
        limit = 1 if stop_at_once else None
        requests = [
            WindowRequest(prompt=prompts.build(language, prompts.initial), limit=limit)
            for language in languages
        ]
        return DispatchedBatch(self.decoder.dispatch(states, requests), languages, probabilities)

    def collect(self, batch: DispatchedBatch) -> list[Transcript]:
        """Wait for a dispatched batch and return its transcripts in order."""
        found = self.decoder.collect(batch.windows)
        return [
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
