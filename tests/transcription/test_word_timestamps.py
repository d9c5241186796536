"""Words of real recordings, from the devices to the segments."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.core.errors import InputError
from flax_distil.model.config import PRESETS
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.transcription.results import AlignedWord, TranscribedSegment
from flax_distil.transcription.words.head_search import HeadSearch, KnownWords
from flax_distil.transcription.words.word_segments import attach_words
from flax_distil.transcription.words.word_timestamps import (
    AlignmentRequest,
    WordAligner,
    add_words,
    alignment_heads,
    content_frames,
)
from tests.transcription.models import Model

CONFIG = dataclasses.replace(PRESETS["tiny"], decoder_layers=2, decoder_attention_heads=3)


@pytest.fixture(scope="module")
def transcriber(tiny_en_dir):
    options = {"max_new_tokens": 24, "return_timestamps": True, "word_timestamps": True}
    transcriber = Model.open(tiny_en_dir).transcriber(**options)
    transcriber.warm_up(3)
    return transcriber


@pytest.fixture(scope="module")
def said(transcriber, speech_and_silence):
    return transcriber.transcribe(speech_and_silence)


def words_of(transcript):
    return [word for segment in transcript.segments for word in segment.words]


def test_words_make_up_the_text_and_follow_each_other(said, texts, speech_and_silence):
    for transcript, text, frames in zip(said[:2], texts, content_frames(speech_and_silence), strict=False):
        words = words_of(transcript)
        assert "".join(word.text for word in words).strip() == text
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= frames / 100
        assert all(0 < word.probability <= 1 for word in words)
        assert (transcript.segments[0].start, transcript.segments[-1].end) == (times[0], times[-1])


def test_after_warming_up_words_compile_nothing(transcriber, speech_and_silence, compilations):
    assert compilations(lambda: transcriber.transcribe(speech_and_silence)) == []


def test_words_do_not_depend_on_the_other_recordings(transcriber, said, speech_and_silence):
    others = transcriber.transcribe(speech_and_silence[::-1])[::-1]
    for one, other in zip(said, others, strict=True):
        assert [(w.text, w.start, w.end) for w in words_of(one)] == [
            (w.text, w.start, w.end) for w in words_of(other)
        ]


def test_a_text_without_timestamps_is_one_segment_and_idle_rows_stay_empty(
    transcriber, said, speech_and_silence
):
    aligner = WordAligner(transcriber.generator)
    states = transcriber.generator.encode_samples(speech_and_silence)
    tokens = [tuple(token for s in transcript.segments for token in s.tokens) for transcript in said]
    bare = [
        dataclasses.replace(transcript, segments=(), tokens=list(ids))
        for transcript, ids in zip(said, tokens, strict=True)
    ]
    bare[2] = dataclasses.replace(bare[2], tokens=[])
    frames = content_frames(speech_and_silence)
    found = add_words(aligner, states, bare, frames)
    assert [len(transcript.segments) for transcript in found] == [1, 1, 0]
    for transcript, before in zip(found[:2], said, strict=False):
        assert [word.text for word in words_of(transcript)] == [word.text for word in words_of(before)]
        assert transcript.segments[0].text.strip() == transcript.text
    requests = [AlignmentRequest(tokens=tokens[0], language="en", frames=frames[0]), None, None]
    first, *idle = aligner.align(states, requests)
    assert "".join(word.text for word in first).strip() == said[0].text
    assert idle == [None, None]


@pytest.fixture(scope="module")
def searched(transcriber, said, speech_and_silence):
    """A search, and two recordings with the words that the model's own heads give; silence does not count."""
    states = transcriber.generator.encode_samples(speech_and_silence)
    requests = [
        AlignmentRequest(
            tokens=tuple(token for part in transcript.segments for token in part.tokens),
            language="en",
            frames=frames,
        )
        for transcript, frames in zip(said[:2], content_frames(speech_and_silence), strict=False)
    ]
    words = WordAligner(transcriber.generator).align(states, [*requests, None])
    known = [KnownWords(request=request, words=own) for request, own in zip(requests, words, strict=False)]
    return HeadSearch(transcriber.generator), [(states, [*known, None])]


def test_words_of_the_same_heads_are_the_same(searched):
    search, windows = searched
    others = tuple(head for head in search.candidates if head not in search.present)
    same, other = search.errors(windows, [search.present, others])
    assert same.mean_seconds < 0.002  # a sum in another order may move a boundary by a step
    assert same.within_tenth == 1
    assert other.mean_seconds > 0.05


@pytest.mark.slow
def test_heads_that_are_found_are_better_than_each_alone(searched):
    search, windows = searched
    found = search.find(windows, most=3)
    assert 1 <= len(found) <= 3
    assert set(found) <= set(search.candidates)
    best, *alone = search.errors(windows, [found, *((head,) for head in search.candidates)])
    assert best.mean_seconds <= min(errors.mean_seconds for errors in alone)
    assert best.mean_seconds < np.median([errors.mean_seconds for errors in alone]) / 2


def test_content_ends_where_zeros_begin():
    samples_BW = np.zeros((3, CHUNK_SAMPLES), np.float32)
    samples_BW[0, 16000:32000] = 0.5
    samples_BW[1] = 0.5
    assert content_frames(samples_BW) == [200, 3000, 0]


def test_heads_are_the_checkpoints_own_or_else_those_of_the_later_layers():
    settings = GenerationSettings(is_multilingual=True, alignment_heads=((1, 2), (0, 1), (1, 2)))
    assert alignment_heads(settings, CONFIG) == ((0, 1), (1, 2))
    unknown = GenerationSettings(is_multilingual=True)
    assert alignment_heads(unknown, CONFIG) == ((1, 0), (1, 1), (1, 2))


@pytest.mark.parametrize("stray", [(2, 0), (1, 3), (-1, 0)])
def test_heads_that_a_model_lacks_are_refused_in_one_sentence(stray):
    settings = GenerationSettings(is_multilingual=True, alignment_heads=((1, 0), stray))
    with pytest.raises(InputError, match=f"layer {stray[0]}, head {stray[1]}, but the decoder has 2 layers"):
        alignment_heads(settings, CONFIG)


def test_a_text_that_does_not_fit_is_refused(transcriber):
    aligner = WordAligner(transcriber.generator)
    request = AlignmentRequest(tokens=(5,) * 447, language="en", frames=3000)
    with pytest.raises(ValueError, match="at most 446 tokens of text, got 447"):
        aligner.align({"encoder_out_BSD": jnp.zeros((1, 1500, 384))}, [request])


def segment(start, end, *tokens):
    return TranscribedSegment(
        start=start, end=end, text="", tokens=tokens, avg_logprob=0.0, no_speech_prob=0.0, temperature=0.0
    )


def word(text, start, end, tokens=1):
    return AlignedWord(text=text, start=start, end=end, probability=1.0, tokens=(0,) * tokens)


def test_a_word_that_swallowed_a_pause_is_cut():
    """The word after ten seconds of silence began with the silence."""
    words = [word(" one", 0.0, 10.3), word(" two", 10.3, 10.5), word(" three", 10.5, 10.8)]
    before = segment(15.0, 15.8, 1, 2, 3)
    (found,), last = attach_words([before], words, last_speech_timestamp=0.0, offset=5.0)
    times = [time for word in found.words for time in (word.start, word.end)]
    np.testing.assert_allclose(times, [14.7, 15.3, 15.3, 15.5, 15.5, 15.8])
    assert (found.start, found.end, last) == (times[0], 15.8, 15.8)


def test_a_segment_without_an_end_ends_with_its_last_word():
    (found,), last = attach_words(
        [segment(0.0, None, 1)], [word(" one", 0.2, 0.6)], last_speech_timestamp=0.0, offset=0.0
    )
    assert (found.start, found.end, last) == (0.2, 0.6, 0.6)


def test_segments_without_words_stay_as_they_are():
    before = segment(1.0, 2.0, 1)
    assert attach_words([before], [], last_speech_timestamp=0.5, offset=0.0) == (
        (dataclasses.replace(before, words=()),),
        0.5,
    )
