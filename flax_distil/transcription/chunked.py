"""Long recordings as chunks that overlap: all chunks of all recordings are one stream of batches."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, CHUNK_SECONDS, SAMPLING_RATE, pad_or_trim
from flax_distil.core import Float, InputError
from flax_distil.transcription.fallback import failed, is_silence
from flax_distil.transcription.merging import DecodedChunk, DecodedToken, MergedSegment, merge_chunks
from flax_distil.transcription.recordings import Name, RecordingTranscriber
from flax_distil.transcription.results import TranscribedSegment, Transcript
from flax_distil.transcription.window_decoder import (
    DispatchedWindows,
    States,
    WindowDecoder,
    WindowRequest,
    WindowResult,
)

MAX_NEW_TOKENS = 128
"""Tokens of a chunk at most, unless another number is asked for; RECIPE 6."""


class Chunk(NamedTuple):
    """Where a chunk lies, in samples.

    Attributes:
        start: of the recording.
        stop: likewise.
        stride_left: what it shares with the chunk before it; 0 for the first.
        stride_right: what it shares with the next one; 0 for the last.
    """

    start: int
    stop: int
    stride_left: int
    stride_right: int


def cut_chunks(samples: int, chunk: int, stride_left: int, stride_right: int) -> list[Chunk]:
    """Cut a recording; the first chunk that reaches its end is the last.

    Args:
        samples: of the recording.
        chunk: samples per chunk.
        stride_left: samples shared with the chunk before.
        stride_right: samples shared with the next; with ``stride_left`` less than ``chunk``.

    Source: RECIPE 6 and 8.8.
    """
    chunks: list[Chunk] = []
    for start in range(0, max(samples, 1), chunk - stride_left - stride_right):
        stop = min(start + chunk, samples)
        last = stop == samples
        chunks.append(Chunk(start, stop, stride_left if start else 0, 0 if last else stride_right))
        if last:
            break
    return chunks


class ChunkedTranscriber(RecordingTranscriber):
    """Transcribes recordings of any length as chunks that overlap.

    The language is that of a recording's first chunk. A transcript's tokens are those of text that are left
    after merging, with one log-probability each, and ``avg_logprob`` is their mean. The recording is as
    silent as its least silent chunk, and its temperature is the highest of any.

    Attributes:
        chunk: samples per chunk.
        stride_left: samples that a chunk shares with the one before it.
        stride_right: samples that it shares with the next one.
    """

    def __init__(
        self,
        decoder: WindowDecoder,
        *,
        batch_size: int,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
    ):
        """Choose how recordings are cut.

        Args:
            decoder: of the checkpoint.
            batch_size: chunks decoded at once.
            chunk_length_s: seconds per chunk, at most 30 (the default); distilled models were made for
                15 (distil-large-v2), 20 (distil-medium.en) or 25 (distil-large-v3).
            stride_length_s: seconds shared on each side, or on the left and on the right; by default a sixth
                of ``chunk_length_s``.

        Raises:
            InputError: if a length is out of range.
        """
        super().__init__(decoder, batch_size=batch_size)
        self.chunk, self.stride_left, self.stride_right = chunk_samples(chunk_length_s, stride_length_s)
        self._limit = (
            MAX_NEW_TOKENS if decoder.options.max_new_tokens is None else decoder.options.max_new_tokens
        )

    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " W"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        The next batch is sent before the last one is waited for.
        """
        waiting: _DispatchedRows | None = None
        for rows in self._batches(recordings):
            sent = self._dispatch(rows)
            if waiting is not None:
                yield from self._collect(waiting)
            waiting = sent
        if waiting is not None:
            yield from self._collect(waiting)

    def _batches(self, recordings: Iterable[tuple[Name, Float[np.ndarray, " W"]]]) -> "Iterator[list[_Row]]":
        """Yield the rows of each batch: full ones, but for the last."""
        rows: list[_Row] = []
        for name, samples_W in recordings:
            chunks = cut_chunks(len(samples_W), self.chunk, self.stride_left, self.stride_right)
            recording = _Recording(name=name, chunks=len(chunks))
            for chunk in chunks:
                rows.append(_Row(recording, chunk, samples_W[chunk.start : chunk.stop]))
                if len(rows) == self.batch_size:
                    yield rows
                    rows = []
        if rows:
            yield rows

    def _dispatch(self, rows: "Sequence[_Row]") -> "_DispatchedRows":
        samples_BW = np.zeros((self.batch_size, CHUNK_SAMPLES), np.float32)
        for row, (_, _, samples_W) in enumerate(rows):
            samples_BW[row] = pad_or_trim(samples_W)
        states = self.decoder.encode_samples(samples_BW)
        self._find_languages(rows, states)
        prompts = self.decoder.prompts
        requests = [
            WindowRequest(
                prompt=prompts.build(recording.language, prompts.initial, with_prefix=not chunk.start),
                limit=self._limit,
                temperature=self.decoder.options.temperature[0],
                seed=self._seed(chunk, 0),
            )
            for recording, chunk, _ in rows
        ]
        idle = [None] * (self.batch_size - len(rows))
        windows = self.decoder.dispatch(states, [*requests, *idle])
        return _DispatchedRows([(row.recording, row.chunk) for row in rows], states, windows)

    def _find_languages(self, rows: "Sequence[_Row]", states: States) -> None:
        """Set the language of each recording whose first chunk is in the batch; may wait for the encoder."""
        special = self.decoder.tokenizer.special
        fixed = self.decoder.options.language if special.is_multilingual else "en"
        codes = list(special.languages)
        found = None
        for row, (recording, chunk, _) in enumerate(rows):
            if chunk.start:
                continue
            if fixed is not None:
                recording.language = fixed
                continue
            if found is None:
                found = self.decoder.language_probabilities(states).tolist()
            recording.probabilities = dict(zip(codes, found[row], strict=True))
            recording.language = max(codes, key=recording.probabilities.__getitem__)

    def _collect(self, batch: "_DispatchedRows") -> Iterator[tuple[Any, Transcript]]:
        """Wait for a batch and yield the recordings that end in it."""
        options = self.decoder.options
        for (recording, chunk), result in zip(batch.rows, self._results(batch), strict=True):
            if is_silence(result, options):
                result = dataclasses.replace(result, tokens=(), token_logprobs=())
            recording.done.append((chunk, result))
            if len(recording.done) == recording.chunks:
                yield recording.name, self._transcript(recording)

    def _results(self, batch: "_DispatchedRows") -> list[WindowResult]:
        """Wait for a batch; chunks that fail a threshold are decoded again at the next temperature."""
        decoder, options = self.decoder, self.decoder.options
        results = [result for result in decoder.collect(batch.windows) if result is not None]
        for attempt, temperature in enumerate(options.temperature[1:], 1):
            failures = [failed(result, options, decoder.tokenizer) for result in results]
            if not any(failures):
                break
            requests: list[WindowRequest | None] = [None] * self.batch_size
            for row, request in enumerate(batch.windows.requests[: len(results)]):
                if request is not None and failures[row]:
                    seed = self._seed(batch.rows[row][1], attempt)
                    requests[row] = dataclasses.replace(request, temperature=temperature, seed=seed)
            again = decoder.collect(decoder.dispatch(batch.states, requests))
            results = [new or old for old, new in zip(results, again, strict=False)]
        return results

    def _seed(self, chunk: Chunk, attempt: int) -> int:
        """Return what the draws of a chunk depend on; not on where it lies in a batch."""
        place = [self.decoder.options.seed, chunk.start, attempt]
        return int(np.random.SeedSequence(place).generate_state(1)[0] >> 1)

    def _transcript(self, recording: "_Recording") -> Transcript:
        tokenizer = self.decoder.tokenizer
        chunks = [decoded_chunk(*done, number=number) for number, done in enumerate(recording.done)]
        results = [result for _, result in recording.done]
        merged = merge_chunks(chunks, tokenizer.special)
        segments = [_segment(segment, tokenizer.decode(_ids(segment)), results) for segment in merged]
        logprobs = [token.logprob for segment in merged for token in segment.tokens]
        with_timestamps = self.decoder.options.return_timestamps
        return Transcript(
            text="".join(segment.text for segment in segments).strip(),
            text_with_timestamps="".join(map(_with_marks, segments)) if with_timestamps else None,
            tokens=[token for segment in segments for token in segment.tokens],
            token_logprobs=logprobs,
            avg_logprob=_mean(logprobs),
            no_speech_prob=min(result.no_speech_prob for result in results),
            language=recording.language,
            language_probabilities=recording.probabilities,
            temperature=max(result.temperature for result in results),
            segments=tuple(segments) if with_timestamps else (),
        )


def chunk_samples(
    chunk_length_s: float | None, stride_length_s: float | tuple[float, float] | None
) -> tuple[int, int, int]:
    """Return samples per chunk, and what it shares with the one before and the next; see the class.

    Raises:
        InputError: if a length is out of range.
    """
    length = CHUNK_SECONDS if chunk_length_s is None else chunk_length_s
    if not 0 < length <= CHUNK_SECONDS:
        raise InputError(f"chunk_length_s {length:g} is not above 0 and at most {CHUNK_SECONDS}")
    stride = length / 6 if stride_length_s is None else stride_length_s
    left, right = stride if isinstance(stride, tuple) else (stride, stride)
    if min(left, right) < 0 or not left + right < length:
        raise InputError(
            f"stride_length_s {left:g} and {right:g} do not fit chunk_length_s {length:g}: "
            "give strides of at least 0 that are shorter together than a chunk"
        )
    chunk, left, right = (round(seconds * SAMPLING_RATE) for seconds in (length, left, right))
    return chunk, left, right


def decoded_chunk(chunk: Chunk, result: WindowResult, *, number: int) -> DecodedChunk:
    """Return what was emitted of a chunk, as it is merged."""
    return DecodedChunk(
        tokens=[
            DecodedToken(token, logprob, number)
            for token, logprob in zip(result.tokens, result.token_logprobs, strict=False)
        ],
        seconds=(chunk.stop - chunk.start) / SAMPLING_RATE,
        stride_left=chunk.stride_left / SAMPLING_RATE,
        stride_right=chunk.stride_right / SAMPLING_RATE,
    )


@dataclasses.dataclass(eq=False)
class _Recording:
    """A recording whose chunks are under way."""

    name: Any
    chunks: int
    language: str = "en"
    probabilities: Mapping[str, float] | None = None
    done: list[tuple[Chunk, WindowResult]] = dataclasses.field(default_factory=list)


class _Row(NamedTuple):
    recording: _Recording
    chunk: Chunk
    samples_W: Float[np.ndarray, " W"]


class _DispatchedRows(NamedTuple):
    rows: list[tuple[_Recording, Chunk]]
    states: States
    windows: DispatchedWindows


def _segment(segment: MergedSegment, text: str, results: Sequence[WindowResult]) -> TranscribedSegment:
    """Return a segment with the figures of its tokens, and of the chunks they are from."""
    sources = [results[chunk] for chunk in {token.chunk for token in segment.tokens}] or results
    return TranscribedSegment(
        start=segment.start or 0.0,
        end=segment.end,
        text=text,
        tokens=_ids(segment),
        avg_logprob=_mean([token.logprob for token in segment.tokens]),
        no_speech_prob=min(source.no_speech_prob for source in sources),
        temperature=max(source.temperature for source in sources),
    )


def _ids(segment: MergedSegment) -> tuple[int, ...]:
    return tuple(token.id for token in segment.tokens)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _with_marks(segment: TranscribedSegment) -> str:
    end = "" if segment.end is None else f"<|{segment.end:.2f}|>"
    return f"<|{segment.start:.2f}|>{segment.text}{end}"
