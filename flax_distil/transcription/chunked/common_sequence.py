"""Recordings of any length as chunks that overlap, a window each, merged by the tokens they share.

The speech recognition pipeline of transformers gives the same tokens with ``chunk_length_s``.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float
from flax_distil.text.timestamps import strip_timestamps
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.chunked.chunk_transcript import (
    TranscribedChunk,
    chunked_transcript,
)
from flax_distil.transcription.chunked.chunking import Chunk, cut_chunks
from flax_distil.transcription.decoding_request import (
    DecodingRequest,
    DecodingResult,
    LimitWarning,
)
from flax_distil.transcription.fallback import (
    attempt_seed,
    is_silence,
    is_without_sound,
)
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.recordings import (
    Name,
    OnSegment,
    Recordings,
    RecordingTranscriber,
    tell_segments,
)
from flax_distil.transcription.results import AlignedWord, Transcript
from flax_distil.transcription.window_stream import EncodedBatch, Results, WindowStream, warm_up_streams
from flax_distil.transcription.words.word_timestamps import AlignmentRequest, WordAligner


class CommonSequenceTranscriber(RecordingTranscriber):
    """Transcribes recordings of any length as chunks that overlap; batches hold chunks of several recordings.

    A chunk is decoded once, even if its text ends before it does. The language is that of a recording's first
    chunk. The tokens of a transcript are those of text that are left after merging, with one log-probability
    each, and ``avg_logprob`` is their mean. The no-speech probability is the lowest one of the chunks; the
    temperature is the highest one.

    Attributes:
        chunk: Samples per chunk.
        stride_left: Samples that a chunk shares with the one before it.
        stride_right: Samples that it shares with the next one.
    """

    def __init__(
        self,
        generator: WhisperGenerator,
        *,
        batch_size: int,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
    ):
        """Choose how recordings are cut.

        Args:
            generator: The checkpoint.
            batch_size: Maximum number of chunks decoded at once.
            chunk_length_s: Seconds per chunk, at most 30 (the default); distilled models were made for
                15 (distil-large-v2), 20 (distil-medium.en) or 25 (distil-large-v3).
            stride_length_s: Seconds shared on each side, or on the left and on the right; by default a sixth
                of ``chunk_length_s``.

        Raises:
            InputError: If a length is out of range.
        """
        super().__init__(generator, batch_size=batch_size)
        self.chunk, self.stride_left, self.stride_right = chunk_samples(
            chunk_length_s, stride_length_s, longest=generator.config.window_seconds
        )
        self._aligner = WordAligner(generator) if generator.options.word_timestamps else None
        self._limit_warning = LimitWarning()

    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""
        seconds = warm_up_streams(self.generator, self.batch_sizes, continued=True)
        return seconds + sum(map(self._aligner.warm_up, self.batch_sizes)) if self._aligner else seconds

    def transcribe_recordings(
        self, recordings: Recordings[Name], *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings.

        ``on_segment`` is called when all of a recording is known.
        """
        batches = map(self._encode, self._batches(recordings))
        stream = WindowStream(
            self.generator, seed=lambda chunks, row, attempt: self._seed(chunks.rows[row][1], attempt)
        )
        for chunks in stream.decode(batches, self._transcribed):
            yield from self._ended(chunks, on_segment)

    def _batches(self, recordings: Recordings[Any]) -> "Iterator[list[_Row]]":
        """Yield the rows of each batch: full ones, but where the next recording is not there yet."""
        rows: list[_Row] = []
        for given in recordings:
            if given is None:
                yield rows
                rows = []
                continue
            name, samples_W = given
            chunks = cut_chunks(len(samples_W), self.chunk, self.stride_left, self.stride_right)
            recording = _Recording(name=name, chunks=len(chunks))
            for chunk in chunks:
                rows.append((recording, chunk, samples_W[chunk.start : chunk.stop]))
                if len(rows) == self.batch_size:
                    yield rows
                    rows = []
        if rows:
            yield rows

    def _encode(self, rows: "Sequence[_Row]") -> EncodedBatch:
        if not rows:
            return EncodedBatch(None, None, ())
        size = self.rows_for(len(rows))
        window = self.generator.config.window_samples
        samples_BW = np.zeros((size, window), np.float32)
        for row, (_, _, samples_W) in enumerate(rows):
            samples_BW[row] = pad_or_trim(samples_W, length=window)
        encoder_out = self.generator.encode_samples(samples_BW)
        self._find_languages(rows, encoder_out)
        prompts = self.generator.prompts
        empty = is_without_sound(samples_BW, self.generator.options)
        requests = [
            DecodingRequest(
                prompt=prompts.build(recording.language, prompts.initial, with_prefix=not chunk.start),
                limit=0 if empty[row] else None,
                temperature=self.generator.options.temperatures[0],
                seed=self._seed(chunk, 0),
            )
            for row, (recording, chunk, _) in enumerate(rows)
        ]
        idle = [None] * (size - len(rows))
        asked = [*requests, *idle]
        return EncodedBatch(_Chunks([row[:2] for row in rows], encoder_out, asked), encoder_out, asked)

    def _find_languages(self, rows: "Sequence[_Row]", encoder_out: EncoderOutput) -> None:
        """Set the language of each recording whose first chunk is in the batch; may wait for the encoder."""
        special = self.generator.tokenizer.special
        fixed = self.generator.options.language if special.is_multilingual else "en"
        found = None
        for row, (recording, chunk, _) in enumerate(rows):
            if chunk.start:
                continue
            if fixed is not None:
                recording.language = fixed
                continue
            if found is None:
                found = self.generator.language_probabilities(encoder_out)
            recording.probabilities = found[row]
            recording.language = max(found[row], key=found[row].__getitem__)

    def _transcribed(
        self, batch: "_Chunks | None", decoded: Results
    ) -> "list[tuple[_Recording, TranscribedChunk]]":
        """Return the transcripts of the chunks of a batch."""
        if batch is None:
            return []
        self._limit_warning.check(batch.requests, decoded)
        results = [
            dataclasses.replace(result, tokens=(), token_logprobs=())
            if is_silence(result, self.generator.options)
            else result
            for result in decoded
            if result is not None
        ]
        return [
            (recording, TranscribedChunk(chunk, result, words))
            for (recording, chunk), result, words in zip(
                batch.rows, results, self._words(batch, results), strict=True
            )
        ]

    def _ended(
        self, chunks: "list[tuple[_Recording, TranscribedChunk]]", on_segment: OnSegment | None
    ) -> Iterator[tuple[Any, Transcript]]:
        """Yield the recordings that end with the chunks of a batch."""
        for recording, transcribed in chunks:
            recording.done.append(transcribed)
            if len(recording.done) == recording.chunks:
                transcript = chunked_transcript(
                    recording.done,
                    self.generator.tokenizer,
                    language=recording.language,
                    language_probabilities=recording.probabilities,
                    options=self.generator.options,
                )
                tell_segments(on_segment, recording.name, transcript.segments)
                yield recording.name, transcript

    def _words(
        self, batch: "_Chunks", results: Sequence[DecodingResult]
    ) -> Sequence[Sequence[AlignedWord] | None]:
        """Return the words of every chunk; None of all chunks if they are not asked for."""
        if self._aligner is None:
            return [None] * len(results)
        special = self.generator.tokenizer.special
        requests: list[AlignmentRequest | None] = [None] * len(batch.requests)
        for row, ((recording, chunk), result) in enumerate(zip(batch.rows, results, strict=True)):
            tokens = tuple(strip_timestamps(result.tokens, special))
            frames = (chunk.stop - chunk.start) // HOP_LENGTH
            if tokens:
                requests[row] = AlignmentRequest(tokens=tokens, language=recording.language, frames=frames)
        if not any(requests):
            return [()] * len(results)
        return [words or () for words in self._aligner.align(batch.encoder_out, requests)[: len(results)]]

    def _seed(self, chunk: Chunk, attempt: int) -> int:
        return attempt_seed(self.generator.options, chunk.start, attempt)


@dataclasses.dataclass(eq=False)
class _Recording:
    """A recording whose chunks are under way."""

    name: Any
    chunks: int
    language: str = "en"
    probabilities: Mapping[str, float] | None = None
    done: list[TranscribedChunk] = dataclasses.field(default_factory=list)


class _Chunks(NamedTuple):
    """The chunks of a batch."""

    rows: list[tuple[_Recording, Chunk]]
    encoder_out: EncoderOutput
    requests: Sequence[DecodingRequest | None]


_Row = tuple[_Recording, Chunk, Float[np.ndarray, " W"]]
"""A chunk, and its samples."""
