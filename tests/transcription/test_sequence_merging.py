"""Merged chunks are what transformers makes of the same tokens."""

import random

import numpy as np
import pytest
import transformers
from transformers.models.whisper import tokenization_whisper as theirs

from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.sequence_merging import (
    DecodedChunk,
    DecodedToken,
    join_overlapping,
    merge_chunks,
)

STRIDES = [(30.0, 5.0, 5.0), (15.0, 2.5, 2.5), (20.0, 10 / 3, 10 / 3), (25.0, 4.0, 0.0), (25.0, 0.0, 3.0)]


def overlapping(draw: random.Random, *, words: int, errors: float) -> list[list[int]]:
    """Return pieces of one sequence that share some tokens, with mistakes."""
    whole = [draw.randrange(words) for _ in range(draw.randrange(1, 120))]
    pieces, start = [], 0
    while start < len(whole):
        stop = start + draw.randrange(1, 40)
        pieces.append([draw.randrange(words) if draw.random() < errors else t for t in whole[start:stop]])
        start = max(start + 1, stop - draw.randrange(12))
    return pieces


@pytest.mark.parametrize("errors", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("words", [3, 500])
def test_overlaps_are_found_as_in_transformers(words, errors):
    draw = random.Random(f"{words} {errors}")
    for _ in range(20):
        pieces = overlapping(draw, words=words, errors=errors)
        joined = join_overlapping([list(map(DecodedToken, piece)) for piece in pieces])
        assert [token.id for token in joined] == theirs._find_longest_common_sequence(pieces)


def test_words_match_only_where_their_times_are_in_order():
    draw = random.Random(0)
    for _ in range(20):
        pieces = overlapping(draw, words=5, errors=0.1)
        times = [[(t, t + draw.choice([0.0, 0.2])) for t in sorted(draw.random() * 5 for _ in piece)]
                 for piece in pieces]  # fmt: skip
        ours = join_overlapping(
            [[DecodedToken(id, span=span) for id, span in zip(*both, strict=True)]
             for both in zip(pieces, times, strict=True)]
        )  # fmt: skip
        ids, spans = theirs._find_longest_common_sequence(pieces, times)
        assert [token.id for token in ours] == ids
        assert [token.span for token in ours] == spans


def chunk_tokens(draw: random.Random, begin: int, seconds: float, *, timestamps: bool) -> list[int]:
    """Return what a model may say in a chunk: pairs of timestamps, some unclosed, some times repeated."""
    tokens, now = [], round(draw.random(), 2)
    while now < seconds and draw.random() < 0.85:
        then = now + round(draw.random() * 8, 2)
        text = [draw.randrange(300, 320) for _ in range(draw.randrange(0, 9))]
        marks = [begin + round(time * 50) for time in (now, min(then, 30.0))]
        tokens += [marks[0], *text, marks[1]] if timestamps else text
        now = then + draw.choice([0, 0, 0.4])
    return tokens[: len(tokens) - draw.randrange(3)]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize(("length", "left", "right"), STRIDES)
def test_segments_are_those_of_transformers(tiny_en_dir, length, left, right, timestamps):
    tokenizer = WhisperTokenizer.from_pretrained(tiny_en_dir)
    reference = transformers.WhisperTokenizer.from_pretrained(tiny_en_dir)
    draw = random.Random(f"{length} {left} {timestamps}")
    found = 0
    for _ in range(12):
        count = draw.randrange(1, 6)
        chunks = [
            DecodedChunk(
                tokens=list(map(DecodedToken, chunk_tokens(
                    draw, tokenizer.special.timestamp_begin, length, timestamps=timestamps))),
                seconds=length if number < count - 1 else length - draw.random() * 3,
                stride_left=left if number else 0.0,
                stride_right=right if number < count - 1 else 0.0,
            )
            for number in range(count)
        ]  # fmt: skip
        segments = merge_chunks(chunks, tokenizer.special)
        outputs = [
            {"tokens": np.array([[token.id for token in chunk.tokens]], int),
             "stride": (chunk.seconds, chunk.stride_left, chunk.stride_right)}
            for chunk in chunks
        ]  # fmt: skip
        text, optional = reference._decode_asr(
            outputs, return_timestamps=timestamps, return_language=None, time_precision=0.02
        )
        texts = [tokenizer.decode([token.id for token in segment.tokens]) for segment in segments]
        assert "".join(texts) == text
        if timestamps:
            assert [
                {"timestamp": (segment.start, segment.end), "text": said}
                for segment, said in zip(segments, texts, strict=True)
            ] == optional["chunks"]
        found += len(segments)
    assert found > 10
