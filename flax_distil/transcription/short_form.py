"""Recordings of at most one window (30 s), in batches."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.prefetch import lookahead
from flax_distil.transcription.decoding_request import (
    DecodingRequest,
    DecodingResult,
    LimitWarning,
    PendingBatch,
)
from flax_distil.transcription.fallback import (
    attempt_seed,
    decode_with_fallback,
    fallback_enabled,
    is_silence,
    is_without_sound,
)
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.recordings import (
    Name,
    OnSegment,
    Recordings,
    RecordingTranscriber,
    in_batches,
    tell_segments,
)
from flax_distil.transcription.results import Transcript, window_transcript
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND
from flax_distil.transcription.words.word_timestamps import WordAligner, add_words, content_frames

T = TypeVar("T")


class PendingTranscripts(NamedTuple):
    """A batch that the devices may still be working on; see ``ShortFormTranscriber.collect``.

    Attributes:
        windows: One window for each recording.
        languages: Their codes.
        probabilities: Probability of each language, where it was detected.
        frames: Frames of 10 ms with content in each recording, where words are looked for.
        ends: Length of each recording in seconds, where it is known: no time lies beyond.
        encoder_out: Encoder output, where it is needed again: for another attempt, or for words.
    """

    windows: PendingBatch
    languages: list[str]
    probabilities: list[Mapping[str, float] | None]
    frames: Sequence[int]
    ends: Sequence[float | None]
    encoder_out: EncoderOutput | None


class ShortFormTranscriber(RecordingTranscriber):
    """Transcribes recordings of at most one window; the next batch is sent before the last is waited for."""

    def __init__(
        self, generator: WhisperGenerator, *, batch_size: int | None = None, pad_batches: bool = False
    ):
        """Bind a generator; compiles nothing.

        Args:
            generator: The checkpoint.
            batch_size: See ``RecordingTranscriber``.
            pad_batches: Pad every batch of recordings to ``batch_size``, so that only this size is compiled.
        """
        super().__init__(generator, batch_size=batch_size)
        self._pads_batches = pad_batches
        self._limit_warning = LimitWarning()
        self._aligner = WordAligner(generator) if generator.options.word_timestamps else None

    def rows_for(self, windows: int) -> int:
        """See ``RecordingTranscriber``."""
        return self.batch_size if self._pads_batches else super().rows_for(windows)

    def warm_up(self, batch_size: int | None = None) -> float:
        """Compile for batches of this size, or of every size, and return the seconds it took."""
        if batch_size is None:
            return sum(map(self.warm_up, self.batch_sizes))
        words = self._aligner.warm_up(batch_size) if self._aligner else 0.0
        return words + self.generator.warm_up(batch_size, continued=False)

    def transcribe_recordings(
        self, recordings: "Recordings[Name]", *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        Raises:
            InputError: If a recording is longer than a window.
        """
        batches = in_batches(recordings, self.batch_size)
        pending = ((batch, self._dispatch_recordings(batch) if batch else None) for batch in batches)
        for batch, transcripts in self._collect_in_turn(pending):
            for (name, _), transcript in zip(batch, transcripts[: len(batch)], strict=True):
                tell_segments(on_segment, name, transcript.segments)
                yield name, transcript

    def transcribe_batches(
        self, batches: Iterable[tuple[T, Float[np.ndarray, "B W"] | None, int]]
    ) -> Iterator[tuple[T, list[Transcript]]]:
        """Yield the transcripts of each batch, beside whatever came with it.

        Args:
            batches: What comes with a batch; its 16 kHz windows, or None for none; how many of them are
                recordings. The windows behind those are padding.
        """

        def dispatch(samples_BW: Float[np.ndarray, "B W"] | None, rows: int) -> PendingTranscripts | None:
            if samples_BW is None:
                return None
            samples_BW[rows:] = samples_BW[0]  # in silence a model may emit tokens up to its limit
            return self.dispatch(samples_BW)

        pending = (((given, rows), dispatch(samples_BW, rows)) for given, samples_BW, rows in batches)
        for (given, rows), transcripts in self._collect_in_turn(pending):
            yield given, transcripts[:rows]

    def _collect_in_turn(
        self, pending: Iterable[tuple[T, PendingTranscripts | None]]
    ) -> Iterator[tuple[T, list[Transcript]]]:
        for given, batch in lookahead(pending):
            yield given, [] if batch is None else self.collect(batch)

    def _dispatch_recordings(
        self, batch: Sequence[tuple[Any, Float[np.ndarray, " _"]]]
    ) -> PendingTranscripts:
        rows, window = self.rows_for(len(batch)), self.generator.config.window_samples
        samples_BW = np.zeros((rows, window), np.float32)
        for row, (name, samples_W) in enumerate(batch):
            if len(samples_W) > window:
                seconds = self.generator.config.window_seconds
                raise InputError(
                    f"{name!r} is longer than {seconds:g} s: use mode vad, chunked or sequential"
                )
            samples_BW[row] = pad_or_trim(samples_W, length=window)
        samples_BW[len(batch) :] = samples_BW[0]  # in silence a model may emit tokens up to its limit
        frames = [len(samples_W) // HOP_LENGTH for _, samples_W in batch]
        languages = [self.language_of(name) for name, _ in batch]
        padding = rows - len(batch)
        return self.dispatch(
            samples_BW,
            frames=[*frames, *frames[:1] * padding],
            languages=[*languages, *languages[:1] * padding],
        )

    def language_of(self, name: Any) -> str | None:
        """Return the code of the language that a recording is known to be in; None if it is not known."""
        return None

    def transcribe(self, samples_BW: Float[np.ndarray, "B W"]) -> list[Transcript]:
        """Transcribe a batch of padded recordings."""
        return self.collect(self.dispatch(samples_BW))

    def dispatch(
        self,
        samples_BW: Float[np.ndarray, "B W"],
        *,
        frames: Sequence[int] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> PendingTranscripts:
        """Send this process's 16 kHz windows to its devices and return at once.

        Only where the language must be detected first does this wait for the encoder.

        Args:
            samples_BW: Recordings, padded.
            frames: Number of frames of 10 ms of each recording; no time of its transcript lies beyond. By
                default padding is found by its zeros, and only where words are looked for.
            languages: Code of the language of each recording; None where it is to be detected, if the
                options name none.
        """
        content = content_frames(samples_BW) if self._aligner and frames is None else frames
        is_empty_B = is_without_sound(samples_BW, self.generator.options)
        sent = self.dispatch_encoded(
            self.generator.encode_samples(samples_BW),
            rows=len(samples_BW),
            frames=content,
            empty=is_empty_B.tolist(),
            languages=languages,
        )
        return sent if frames is None else sent._replace(ends=[count / FRAMES_PER_SECOND for count in frames])

    def dispatch_encoded(
        self,
        encoder_out: EncoderOutput,
        *,
        rows: int,
        frames: Sequence[int] | None = None,
        empty: Sequence[bool] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> PendingTranscripts:
        """Do the same from encoder output that is on the devices already.

        Args:
            encoder_out: Rows of all processes.
            rows: How many of them are this process's.
            frames: Frames of 10 ms with content in each row, where words are looked for; by default all.
            empty: Rows that get no text and are not decoded; by default none.
            languages: Code of the language of each row, or None; see :meth:`dispatch`.
        """
        found, probabilities = self._languages(encoder_out, rows, languages or [None] * rows)
        prompts, options = self.generator.prompts, self.generator.options
        requests = [
            DecodingRequest(
                prompt=prompts.build(language, prompts.initial),
                limit=0 if is_empty else None,
                temperature=options.temperatures[0],
                seed=attempt_seed(options, 0),
            )
            for language, is_empty in zip(found, empty or [False] * rows, strict=True)
        ]
        return PendingTranscripts(
            self.generator.dispatch(encoder_out, requests),
            found,
            probabilities,
            frames or [2 * self.generator.config.max_source_positions] * rows,
            [None] * rows,
            encoder_out if self._aligner or fallback_enabled(options) else None,
        )

    def collect(self, batch: PendingTranscripts) -> list[Transcript]:
        """Wait for a batch and return its transcripts in order.

        Windows that failed a threshold are decoded again at the next temperature, all of the batch together;
        the last attempt stands. A silent window has no text.
        """
        transcripts = [
            self._transcript(result, language, probabilities, end)
            for result, language, probabilities, end in zip(
                self._results(batch), batch.languages, batch.probabilities, batch.ends, strict=True
            )
            if result is not None
        ]
        if self._aligner is not None and batch.encoder_out is not None:
            transcripts = add_words(self._aligner, batch.encoder_out, transcripts, batch.frames)
        return [
            _limit_times(transcript, end) for transcript, end in zip(transcripts, batch.ends, strict=True)
        ]

    def _results(self, batch: PendingTranscripts) -> list[DecodingResult | None]:
        """Wait for a batch, decoded again where it failed."""
        options = self.generator.options
        found = self.generator.collect(batch.windows)
        self._limit_warning.check(batch.windows.requests, found)
        if not fallback_enabled(options) or batch.encoder_out is None:
            return found
        return decode_with_fallback(
            self.generator,
            batch.encoder_out,
            batch.windows.requests,
            found,
            seed=lambda _, attempt: attempt_seed(options, attempt),
        )

    def _transcript(
        self,
        result: DecodingResult,
        language: str,
        probabilities: Mapping[str, float] | None,
        end: float | None,
    ) -> Transcript:
        options = self.generator.options
        if is_silence(result, options):
            result = dataclasses.replace(result, tokens=(), token_logprobs=())
        return window_transcript(
            result,
            self.generator.tokenizer,
            language=language,
            language_probabilities=probabilities,
            with_timestamps=options.return_timestamps,
            end=end,
        )

    def _languages(
        self, encoder_out: EncoderOutput, rows: int, given: Sequence[str | None]
    ) -> tuple[list[str], list[Any]]:
        """Return the language of each row, and the probabilities of all languages where it was detected."""
        special = self.generator.tokenizer.special
        language = self.generator.options.language if special.is_multilingual else "en"
        known = [language or code for code in given]
        if all(known):
            return [code for code in known if code], [None] * rows
        found = self.generator.language_probabilities(encoder_out)
        likeliest = [code or max(row, key=row.__getitem__) for code, row in zip(known, found, strict=True)]
        return likeliest, [None if code else row for code, row in zip(known, found, strict=True)]


def _limit_times(transcript: Transcript, end: float | None) -> Transcript:
    """Return a transcript whose segments lie within a recording of known length."""
    if end is None:
        return transcript
    return dataclasses.replace(transcript, segments=keep_within(transcript.segments, begin=0.0, end=end))
