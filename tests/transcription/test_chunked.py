"""Chunks that are decoded to their ends and merged by times hear what is heard window after window."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from flax_distil.audio.constants import HOP_LENGTH, SAMPLING_RATE
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.text.normalizers import get_normalizer
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.chunked.chunking import cut_at_pauses
from flax_distil.transcription.chunked.transcriber import ChunkedTranscriber
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import TranscriptionOptions, long_form_defaults
from flax_distil.transcription.results import TranscribedSegment, Transcript
from tests.long_recording import long_recording
from tests.transcription.models import Model


@pytest.mark.parametrize("lengths", [(30.0, None), (15.0, None), (20.0, (4.0, 0.0)), (10.0, (0.0, 0.0))])
def test_chunks_cover_a_recording_and_share_their_strides(lengths):
    chunk, left, right = chunk_samples(*lengths)
    draw = np.random.default_rng(0)
    for frames in draw.integers(1, 12_000, 20):
        chunks = cut_at_pauses(draw.normal(size=int(frames)), chunk, left, right)
        assert chunks[0].start == chunks[0].stride_left == chunks[-1].stride_right == 0
        assert chunks[-1].stop == frames * HOP_LENGTH
        assert all(one.stop - one.start <= chunk for one in chunks)
        for one, other in itertools.pairwise(chunks):
            assert other.start > one.start
            assert one.stop - other.start == one.stride_right + other.stride_left
            assert one.stop - other.start >= (left + right) // 2 - 2 * HOP_LENGTH


def test_chunks_begin_where_it_is_quiet():
    loudness = np.zeros(6000)
    loudness[1800:1840] = -5.0  # a pause, 2 s before a chunk would begin
    chunks = cut_at_pauses(loudness, *chunk_samples(30.0, None))
    assert [round(one.start / SAMPLING_RATE, 1) for one in chunks] == [0.0, 18.2, 38.2]


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


def transcriber(model: Model, mode: str, *, batch_size: int = 4, **options: Any) -> Any:
    cuts = {"chunk_length_s": options.pop("length")} if "length" in options else {}
    usual = long_form_defaults(TranscriptionOptions(**{"temperature": (0.0,)} | options))
    chosen = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
    return make_transcriber(mode, model.transcriber(**chosen).generator, batch_size=batch_size, **cuts)


def wer(reference: str, transcript: Transcript) -> float:
    found = sample_wer(reference, transcript.text, get_normalizer("en"))
    assert found is not None
    return found


def test_chunks_are_heard_to_their_ends_and_their_segments_told_as_they_are_fixed(tiny_en):
    samples, said = long_recording(33.0)
    by = transcriber(tiny_en, "chunked", length=15.0, batch_size=2, max_new_tokens=120)
    assert isinstance(by, ChunkedTranscriber)
    told: list[TranscribedSegment] = []
    [(_, found)] = by.transcribe_recordings([("", samples)], on_segment=lambda _, one: told.append(one))
    assert wer(said, found) < 12
    assert tuple(told) == found.segments
    ends = [segment.end for segment in found.segments]
    assert ends == sorted(ends)
    assert ends[-1] <= len(samples) / SAMPLING_RATE
    assert len(found.tokens) == len(found.token_logprobs) == sum(len(one.tokens) for one in found.segments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_en_dir", "base_dir"])
@pytest.mark.parametrize("length", [15.0, 30.0])
def test_as_many_words_are_heard_in_chunks_as_window_after_window(name, length, request):
    """Before, more than a third of the words were missing: without timestamps decoding ends at a pause."""
    model = Model.open(request.getfixturevalue(name))
    language = {"language": "en"} if name == "base_dir" else {}
    samples, said = long_recording(120.0, split="validation")
    [(_, whole)] = transcriber(model, "sequential", batch_size=1, **language).transcribe_recordings(
        [("", samples)]
    )
    by = transcriber(model, "chunked", length=length, **language)
    [(_, chunked)] = by.transcribe_recordings([("", samples)])
    assert wer(said, chunked) <= wer(said, whole) + 2


@pytest.mark.slow
def test_words_of_chunks_have_a_length_and_none_is_doubled(tiny_en):
    samples, said = long_recording(120.0, split="validation")
    by = transcriber(tiny_en, "chunked", length=30.0, word_timestamps=True)
    [(_, found)] = by.transcribe_recordings([("", samples)])
    words = [word for segment in found.segments for word in segment.words or ()]
    assert "".join(word.text for word in words).strip() == found.text
    assert all(0 <= word.start < word.end <= len(samples) / SAMPLING_RATE for word in words)
    assert all(one.end <= other.start for one, other in itertools.pairwise(words))
    assert len(words) <= 1.03 * len(said.split())
