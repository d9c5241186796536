"""Recordings of at most one window (30 s), in batches."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.transcription.decoding_request import (
    DecodingResult,
    LimitWarning,
    PendingBatch,
)
from flax_distil.transcription.encoded_windows import EncodedWindows, windows_to_decode
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
    longest_first,
    tell_segments,
)
from flax_distil.transcription.results import Transcript, window_transcript
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND
from flax_distil.transcription.window_stream import EncodedBatch, Results, WindowStream, warm_up_streams
from flax_distil.transcription.words.word_timestamps import WordAligner, add_words, content_frames

T = TypeVar("T")


class PendingTranscripts(NamedTuple):
    """A batch that the devices may still be working on; see ``ShortFormTranscriber.collect``.

    Attributes:
        windows: The windows; with encoder output where it is needed again, for another attempt or for words.
        decoding: What is decoded of them.
    """

    windows: EncodedWindows
    decoding: PendingBatch


class ShortFormTranscriber(RecordingTranscriber):
    """Transcribes recordings of at most one window, one batch after the other; see :class:`WindowStream`."""

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
        sizes = self.batch_sizes if batch_size is None else [batch_size]
        words = sum(map(self._aligner.warm_up, sizes)) if self._aligner else 0.0
        return words + warm_up_streams(self.generator, sizes)

    def transcribe_recordings(
        self, recordings: "Recordings[Name]", *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        Raises:
            InputError: If a recording is longer than a window.
        """
        found: dict[int, tuple[Any, Transcript]] = {}
        told = 0
        batches = longest_first(recordings, self.batch_size)
        encoded = ((batch, self._encode_recordings([given for _, given in batch])) for batch in batches)
        for batch, transcripts in self.collect_in_turn(encoded):
            for (number, (name, _)), transcript in zip(batch, transcripts[: len(batch)], strict=True):
                found[number] = name, transcript
            while told in found:
                name, transcript = found.pop(told)
                tell_segments(on_segment, name, transcript.segments)
                yield name, transcript
                told += 1

    def transcribe_batches(
        self, batches: Iterable[tuple[T, Float[np.ndarray, "B W"] | None, int]]
    ) -> Iterator[tuple[T, list[Transcript]]]:
        """Yield the transcripts of each batch, beside whatever came with it.

        Args:
            batches: What comes with a batch; its 16 kHz windows, or None for none; how many of them are
                recordings. The windows behind those are padding.
        """

        def encode(samples_BW: Float[np.ndarray, "B W"] | None, rows: int) -> EncodedWindows | None:
            return None if samples_BW is None else self.encode(samples_BW, rows=rows)

        encoded = (((given, rows), encode(samples_BW, rows)) for given, samples_BW, rows in batches)
        for (given, rows), transcripts in self.collect_in_turn(encoded):
            yield given, transcripts[:rows]

    def collect_in_turn(
        self, batches: Iterable[tuple[T, EncodedWindows | None]]
    ) -> Iterator[tuple[T, list[Transcript]]]:
        """Yield the transcripts of each batch, beside whatever came with it.

        Rows of the decoder that have ended take windows of the next batch at once.

        Args:
            batches: What comes with a batch, and its windows; None where there are none for now: what is
                under way is finished then.
        """

        def sent() -> Iterator[EncodedBatch]:
            for given, windows in batches:
                if windows is None:
                    yield EncodedBatch((given, None), None, ())
                else:
                    kept = windows if self._aligner else windows._replace(encoder_out=None)
                    yield EncodedBatch((given, kept), windows.encoder_out, windows.requests)

        def make(batch: tuple[T, EncodedWindows | None], results: Results) -> tuple[T, list[Transcript]]:
            given, windows = batch
            return given, [] if windows is None else self._transcripts(windows, results)

        stream = WindowStream(self.generator, seed=lambda given, row, attempt: self._seed(attempt))
        yield from stream.decode(sent(), make)

    def _encode_recordings(
        self, batch: Sequence[tuple[Any, Float[np.ndarray, " _"]]]
    ) -> EncodedWindows | None:
        if not batch:
            return None
        rows, window = self.rows_for(len(batch)), self.generator.config.window_samples
        samples_BW = np.zeros((rows, window), np.float32)
        for row, (name, samples_W) in enumerate(batch):
            if len(samples_W) > window:
                seconds = self.generator.config.window_seconds
                raise InputError(
                    f"{name!r} is longer than {seconds:g} s: use mode vad, chunked or sequential"
                )
            samples_BW[row] = pad_or_trim(samples_W, length=window)
        return self.encode(
            samples_BW,
            rows=len(batch),
            frames=[len(samples_W) // HOP_LENGTH for _, samples_W in batch],
            languages=[self.language_of(name) for name, _ in batch],
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
        """Send this process's 16 kHz windows to its devices and return at once; see :meth:`encode`."""
        return self._dispatch(self.encode(samples_BW, frames=frames, languages=languages))

    def dispatch_encoded(self, encoder_out: EncoderOutput, **settings: Any) -> PendingTranscripts:
        """Do the same from encoder output that is on the devices already; see ``windows_to_decode``."""
        return self._dispatch(windows_to_decode(self.generator, encoder_out, **settings))

    def _dispatch(self, windows: EncodedWindows) -> PendingTranscripts:
        assert windows.encoder_out is not None
        decoding = self.generator.dispatch(windows.encoder_out, windows.requests)
        return PendingTranscripts(self._kept(windows), decoding)

    def encode(
        self,
        samples_BW: Float[np.ndarray, "B W"],
        *,
        rows: int | None = None,
        frames: Sequence[int] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> EncodedWindows:
        """Send this process's 16 kHz windows to its devices to be encoded, and return at once.

        Only where the language must be detected first does this wait for the encoder.

        Args:
            samples_BW: Recordings, padded.
            rows: How many there are; the windows behind them are not decoded. By default all.
            frames: Number of frames of 10 ms of each recording; no time of its transcript lies beyond. By
                default padding is found by its zeros, and only where words are looked for.
            languages: Code of the language of each recording; None where it is to be detected, if the
                options name none.
        """
        content = content_frames(samples_BW) if self._aligner and frames is None else frames
        windows = windows_to_decode(
            self.generator,
            self.generator.encode_samples(samples_BW),
            rows=len(samples_BW),
            recordings=rows,
            frames=content,
            empty=is_without_sound(samples_BW, self.generator.options).tolist(),
            languages=languages,
        )
        if frames is None:
            return windows
        ends = [count / FRAMES_PER_SECOND for count in frames]
        return windows._replace(ends=[*ends, *[None] * (len(samples_BW) - len(ends))])

    def _kept(self, windows: EncodedWindows) -> EncodedWindows:
        """Return windows without encoder output, unless it is needed again."""
        is_needed = self._aligner is not None or fallback_enabled(self.generator.options)
        return windows if is_needed else windows._replace(encoder_out=None)

    def collect(self, batch: PendingTranscripts) -> list[Transcript]:
        """Wait for a batch and return its transcripts in order.

        Windows that failed a threshold are decoded again at the next temperature, all of the batch together;
        the last attempt stands. A silent window has no text.
        """
        windows, found = batch.windows, self.generator.collect(batch.decoding)
        if fallback_enabled(self.generator.options) and windows.encoder_out is not None:
            found = decode_with_fallback(
                self.generator,
                windows.encoder_out,
                windows.requests,
                found,
                seed=lambda _, attempt: self._seed(attempt),
            )
        return self._transcripts(windows, found)

    def _seed(self, attempt: int) -> int:
        """Return the random seed of an attempt."""
        return attempt_seed(self.generator.options, attempt)

    def _transcripts(self, windows: EncodedWindows, results: Results) -> list[Transcript]:
        """Return the transcripts of windows."""
        self._limit_warning.check(windows.requests, results)
        transcripts = [
            self._transcript(result, language, probabilities, end)
            for result, language, probabilities, end in zip(
                results,
                windows.languages,
                windows.probabilities,
                windows.ends,
                strict=True,
            )
            if result is not None
        ]
        if self._aligner is not None and windows.encoder_out is not None:
            transcripts = add_words(self._aligner, windows.encoder_out, transcripts, windows.frames)
        return [
            _limit_times(transcript, end) for transcript, end in zip(transcripts, windows.ends, strict=True)
        ]

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


def _limit_times(transcript: Transcript, end: float | None) -> Transcript:
    """Return a transcript whose segments lie within a recording of known length."""
    if end is None:
        return transcript
    return dataclasses.replace(transcript, segments=keep_within(transcript.segments, begin=0.0, end=end))
