"""The transcript of a recording, merged from its decoded chunks."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flax_distil.audio.constants import HOP_LENGTH, SAMPLING_RATE
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.text.words import split_words
from flax_distil.transcription.chunked.chunking import Chunk
from flax_distil.transcription.chunked.sequence_merging import (
    DecodedChunk,
    DecodedToken,
    MergedSegment,
    merge_chunks,
)
from flax_distil.transcription.decoding_request import DecodingResult
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import AlignedWord, TranscribedSegment, Transcript
from flax_distil.transcription.words.word_segments import attach_words


class TranscribedChunk(NamedTuple):
    """What was decoded of a chunk.

    Attributes:
        chunk: Where the chunk lies.
        result: Its decoded tokens.
        words: Their times within the chunk; None where they are not asked for.
    """

    chunk: Chunk
    result: DecodingResult
    words: Sequence[AlignedWord] | None


def chunked_transcript(
    chunks: Sequence[TranscribedChunk],
    tokenizer: WhisperTokenizer,
    *,
    language: str,
    language_probabilities: Mapping[str, float] | None,
    options: TranscriptionOptions,
) -> Transcript:
    """Merge the chunks of a recording, in order; see ``CommonSequenceTranscriber``."""
    results = [chunk.result for chunk in chunks]
    merged = merge_chunks(
        [_to_decoded_chunk(chunk, tokenizer.special, number) for number, chunk in enumerate(chunks)],
        tokenizer.special,
    )
    ratios = [compression_ratio(tokenizer.decode(result.tokens).strip()) for result in results]
    segments = [_segment(segment, tokenizer.decode(_ids(segment)), chunks, ratios) for segment in merged]
    tokens = [token for segment in merged for token in segment.tokens]
    logprobs = [token.logprob for token in tokens]
    if chunks[0].words is not None:
        words = _words(tokens, tokenizer, language=language)
        segments = list(
            attach_words(
                segments, words, last_speech_timestamp=0.0, offset=0.0, punctuations=options.punctuations
            )[0]
        )
    with_timestamps = options.return_timestamps
    with_segments = with_timestamps or chunks[0].words is not None
    segments = list(keep_within(segments, begin=0.0, end=chunks[-1].chunk.stop / SAMPLING_RATE))
    return Transcript(
        text="".join(segment.text for segment in segments).strip(),
        text_with_timestamps="".join(map(_mark_times, segments)) if with_timestamps else None,
        tokens=[token.id for token in tokens],
        token_logprobs=logprobs,
        avg_logprob=_mean(logprobs),
        no_speech_prob=min(result.no_speech_prob for result in results),
        language=language,
        language_probabilities=language_probabilities,
        temperature=max(result.temperature for result in results),
        segments=tuple(segments) if with_segments else (),
    )


def _to_decoded_chunk(done: TranscribedChunk, special: SpecialTokens, number: int) -> DecodedChunk:
    """Return a chunk for merging; tokens of text have the times of their word."""
    spans = iter([(word.start, word.end) for word in done.words or () for _ in word.tokens])
    return DecodedChunk(
        tokens=[
            DecodedToken(token, logprob, number, None if special.is_timestamp(token) else next(spans, None))
            for token, logprob in zip(done.result.tokens, done.result.token_logprobs, strict=False)
        ],
        seconds=(done.chunk.stop - done.chunk.start) / SAMPLING_RATE,
        stride_left=done.chunk.stride_left / SAMPLING_RATE,
        stride_right=done.chunk.stride_right / SAMPLING_RATE,
    )


def _words(
    tokens: Sequence[DecodedToken], tokenizer: WhisperTokenizer, *, language: str
) -> list[AlignedWord]:
    """Split merged tokens into words. A word begins with its first token's word and ends with its last one's.

    Where chunks meet, the first word of the next may begin before the last one ends; it is moved behind it.
    """
    rest = iter(tokens)
    words: list[AlignedWord] = []
    last_end = 0.0
    for word in split_words([token.id for token in tokens], tokenizer, language=language):
        own = [next(rest) for _ in word.tokens]
        spans = [token.span for token in own if token.span is not None]
        start = max(last_end, spans[0][0])
        last_end = max(start, spans[-1][1])
        words.append(
            AlignedWord(
                text=word.text,
                start=start,
                end=last_end,
                probability=_mean([math.exp(token.logprob) for token in own]),
                tokens=word.tokens,
            )
        )
    return words


def _segment(
    segment: MergedSegment, text: str, chunks: Sequence[TranscribedChunk], ratios: Sequence[float]
) -> TranscribedSegment:
    """Return a segment with the values of its tokens, and of the chunks that they come from."""
    numbers = sorted({token.chunk for token in segment.tokens}) or range(len(chunks))
    sources = [chunks[number].result for number in numbers]
    return TranscribedSegment(
        start=segment.start or 0.0,
        end=segment.end,
        text=text,
        tokens=_ids(segment),
        avg_logprob=_mean([token.logprob for token in segment.tokens]),
        no_speech_prob=min(source.no_speech_prob for source in sources),
        temperature=max(source.temperature for source in sources),
        compression_ratio=max(ratios[number] for number in numbers),
        seek=chunks[numbers[0]].chunk.start // HOP_LENGTH,
    )


def _ids(segment: MergedSegment) -> tuple[int, ...]:
    return tuple(token.id for token in segment.tokens)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _mark_times(segment: TranscribedSegment) -> str:
    end = "" if segment.end is None else f"<|{segment.end:.2f}|>"
    return f"<|{segment.start:.2f}|>{segment.text}{end}"
