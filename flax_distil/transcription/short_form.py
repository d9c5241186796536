"""Recordings of at most 30 s, in batches: one window each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.transcription.fallback import (
    attempt_seed,
    decode_with_fallback,
    fallback_enabled,
    is_silence,
    is_without_sound,
)
from flax_distil.transcription.generator import DecodingRequest, EncoderOutput, PendingBatch, WhisperGenerator
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import Transcript, window_transcript
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND
from flax_distil.transcription.window_limits import LimitWarning
from flax_distil.transcription.words.word_timestamps import WordAligner, add_words, content_frames


class PendingTranscripts(NamedTuple):
    """A batch the device may still be working on; see ``ShortFormTranscriber.collect``."""

    windows: PendingBatch
    languages: list[str]
    probabilities: list[Mapping[str, float] | None]
    frames: list[int]
    ends: list[float | None]
    """Seconds, of recordings whose length is known: no time lies beyond."""
    retries: bool
    states: EncoderOutput | None
    """Of the batch, where they are needed again: for another attempt, or for words."""


class ShortFormTranscriber:
    """Transcribes batches of recordings of at most 30 s.

    Attributes:
        generator: of the checkpoint.
    """

    def __init__(self, generator: WhisperGenerator):
        self.generator = generator
        self._limit_warning = LimitWarning()
        self._aligner = WordAligner(generator) if generator.options.word_timestamps else None

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size and return the seconds it took."""
        words = self._aligner.warm_up(batch_size) if self._aligner else 0.0
        return words + self.generator.warm_up(batch_size, continued=False)

    def transcribe(
        self, samples_BW: Float[np.ndarray, "B W"], *, stop_at_once: bool = False
    ) -> list[Transcript]:
        """Transcribe a batch; ``stop_at_once`` emits one token, to compile and no more."""
        return self.collect(self.dispatch(samples_BW, stop_at_once=stop_at_once))

    def dispatch(
        self,
        samples_BW: Float[np.ndarray, "B W"],
        *,
        stop_at_once: bool = False,
        frames: Sequence[int] | None = None,
    ) -> PendingTranscripts:
        """Send this process's 16 kHz windows of 30 s to its devices and return at once.

        Only where the language must be detected first does this wait for the encoder.

        Args:
            samples_BW: recordings, padded.
            stop_at_once: emit one token, to compile and no more.
            frames: of 10 ms that each recording has; no time of its transcript lies beyond. By default
                padding is told by its zeros, and only where words are looked for.
        """
        content = content_frames(samples_BW) if self._aligner and frames is None else frames
        sent = self.dispatch_encoded(
            self.generator.encode_samples(samples_BW),
            rows=len(samples_BW),
            stop_at_once=stop_at_once,
            frames=content,
            empty=is_without_sound(samples_BW, self.generator.options).tolist(),
        )
        return sent if frames is None else sent._replace(ends=[count / FRAMES_PER_SECOND for count in frames])

    def dispatch_encoded(
        self,
        states: EncoderOutput,
        *,
        rows: int,
        stop_at_once: bool = False,
        frames: Sequence[int] | None = None,
        empty: Sequence[bool] | None = None,
    ) -> PendingTranscripts:
        """Do the same from encoder states already on the devices.

        Args:
            states: rows of all processes.
            rows: how many of them are this process's.
            stop_at_once: emit one token, to compile and no more.
            frames: of 10 ms with content in each row, where words are looked for; by default all.
            empty: rows that get no text, undecoded; by default none.
        """
        languages, probabilities = self._languages(states, rows)
        prompts, options = self.generator.prompts, self.generator.options
        requests = [
            DecodingRequest(
                prompt=prompts.build(language, prompts.initial),
                limit=0 if is_empty else 1 if stop_at_once else None,
                temperature=options.temperatures[0],
                seed=attempt_seed(options, 0),
            )
            for language, is_empty in zip(languages, empty or [False] * rows, strict=True)
        ]
        retries = fallback_enabled(options) and not stop_at_once
        return PendingTranscripts(
            self.generator.dispatch(states, requests),
            languages,
            probabilities,
            list(frames or [2 * self.generator.config.max_source_positions] * rows),
            [None] * rows,
            retries,
            states if retries or self._aligner else None,
        )

    def collect(self, batch: PendingTranscripts) -> list[Transcript]:
        """Wait for a dispatched batch and return its transcripts in order.

        Windows that failed are tried again at the next temperature, all of the batch together; the last
        attempt stands. What is silence has no text.
        """
        options = self.generator.options
        found = self.generator.collect(batch.windows)
        self._limit_warning.check(batch.windows.requests, found)
        if batch.retries and batch.states is not None:
            found = decode_with_fallback(
                self.generator,
                batch.states,
                batch.windows.requests,
                found,
                seed=lambda _, attempt: attempt_seed(options, attempt),
            )
        transcripts = [
            window_transcript(
                dataclasses.replace(result, tokens=(), token_logprobs=())
                if is_silence(result, options)
                else result,
                self.generator.tokenizer,
                language=language,
                language_probabilities=probabilities,
                with_timestamps=options.return_timestamps,
                end=end,
            )
            for result, language, probabilities, end in zip(
                found, batch.languages, batch.probabilities, batch.ends, strict=True
            )
            if result is not None
        ]
        if self._aligner is not None and batch.states is not None:
            transcripts = add_words(self._aligner, batch.states, transcripts, batch.frames)
        return [
            transcript
            if end is None
            else dataclasses.replace(
                transcript, segments=keep_within(transcript.segments, begin=0.0, end=end)
            )
            for transcript, end in zip(transcripts, batch.ends, strict=True)
        ]

    def _languages(self, states: EncoderOutput, rows: int) -> tuple[list[str], list[Any]]:
        special = self.generator.tokenizer.special
        nothing: list[Any] = [None] * rows
        if not special.is_multilingual:
            return ["en"] * rows, nothing
        if self.generator.options.language is not None:
            return [self.generator.options.language] * rows, nothing
        found = self.generator.language_probabilities(states)
        return [max(row, key=row.__getitem__) for row in found], found
