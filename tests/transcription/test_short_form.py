"""Real models transcribe real recordings, batch after batch without compiling again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.transcription import encoded_windows
from flax_distil.transcription.decoding_request import RowSteps
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests.transcription.models import Model

NEW = 24  # tokens: more than any of the recordings needs, and one short cache


def heard(transcriber, states, **options):
    """Transcribe from encoder states."""
    sent = transcriber.dispatch_encoded({"encoder_out_BSD": states}, rows=len(states), **options)
    return transcriber.collect(sent)


def assert_same(transcripts, wanted):
    for ours, theirs in zip(transcripts, wanted, strict=True):
        assert (ours.tokens, ours.text, ours.language) == (theirs.tokens, theirs.text, theirs.language)
        # float32; another program or another batch sums in another order
        np.testing.assert_allclose(ours.token_logprobs, theirs.token_logprobs, atol=1e-3)
        np.testing.assert_allclose(ours.no_speech_prob, theirs.no_speech_prob, rtol=1e-2, atol=1e-5)


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir):
    return Model.open(tiny_en_dir)


@pytest.fixture(scope="module")
def english(tiny_en):
    """The English-only model with timestamps, warmed up for batches of three."""
    transcriber = tiny_en.transcriber(max_new_tokens=NEW, return_timestamps=True)
    transcriber.warm_up(3)
    return transcriber


@pytest.fixture(scope="module")
def said(english, speech_and_silence):
    return english.transcribe(speech_and_silence)


@pytest.fixture(scope="module")
def states(tiny_en, speech_and_silence):
    return tiny_en.encode(speech_and_silence)


def test_after_warming_up_nothing_is_compiled(english, speech_and_silence, compilations):
    assert compilations(lambda: english.transcribe(speech_and_silence)) == []
    assert compilations(lambda: jax.jit(lambda x: x + 1)(np.ones(3))) == ["jit(<lambda>)"]  # it does count


def test_new_weights_of_the_same_shape_compile_nothing(
    tiny_en, english, said, speech_and_silence, compilations
):
    params = jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), tiny_en.params)
    other = tiny_en.transcriber(params, max_new_tokens=NEW, return_timestamps=True)
    transcripts, batches = [], [("a", speech_and_silence, 3), ("b", speech_and_silence, 3)]
    assert compilations(lambda: transcripts.extend(other.transcribe(speech_and_silence))) == []
    assert compilations(lambda: list(other.transcribe_batches(batches))) == []
    assert [t.tokens for t in transcripts] != [t.tokens for t in said]


def test_tiny_en_says_what_is_said(said, texts):
    assert [transcript.text for transcript in said[:2]] == texts
    assert {transcript.language for transcript in said} == {"en"}


def test_timestamps_stand_around_the_text(said, texts):
    for transcript, text in zip(said[:2], texts, strict=True):
        assert transcript.tokens[-1] > transcript.tokens[0] == 50363  # <|0.00|>
        assert transcript.text_with_timestamps.startswith(f"<|0.00|> {text}<|")


def test_scores_are_those_of_the_tokens_and_the_end(said):
    for transcript in said[:2]:
        assert len(transcript.token_logprobs) == len(transcript.tokens) + 1 < NEW
        assert max(transcript.token_logprobs) <= 0
        np.testing.assert_allclose(transcript.avg_logprob, np.mean(transcript.token_logprobs), rtol=1e-5)
        assert transcript.avg_logprob > -0.5


def test_silence_is_told_from_speech(said):
    *speech, silence = [transcript.no_speech_prob for transcript in said]
    assert silence > 0.3
    assert max(speech) < silence / 10


def test_batches_may_be_under_way_together_and_start_from_encoder_states(
    english, said, speech_and_silence, states
):
    first = english.dispatch(speech_and_silence)
    second = english.dispatch_encoded({"encoder_out_BSD": states[::-1]}, rows=len(states))
    assert_same(english.collect(second), said[::-1])
    assert_same(english.collect(first), said)


def test_padded_batches_compile_one_size_and_change_nothing(english, said, speech_and_silence, compilations):
    padded = ShortFormTranscriber(english.generator, batch_size=3, pad_batches=True)
    assert padded.batch_sizes == [3]
    found = []
    recordings = list(enumerate(speech_and_silence[:1]))
    assert compilations(lambda: found.extend(padded.transcribe_recordings(recordings))) == []
    [(name, transcript)] = found
    assert name == 0
    assert_same([transcript], said[:1])


def test_rows_are_filled_at_once_without_compiling_and_say_the_same(
    english, said, speech_and_silence, compilations
):
    stream = ShortFormTranscriber(english.generator, batch_size=3, pad_batches=True)
    recordings, found = list(enumerate([*speech_and_silence] * 3)), []
    english.generator.row_steps = RowSteps()
    assert compilations(lambda: found.extend(stream.transcribe_recordings(recordings))) == []
    assert [name for name, _ in found] == list(range(9))
    assert_same([transcript for _, transcript in found], [*said] * 3)
    lengths = [len(transcript.token_logprobs) - 1 for transcript in said]  # the first comes with the prompt
    steps = english.generator.row_steps
    assert steps.used == 3 * sum(lengths)
    assert steps.ran < 3 * 3 * max(lengths)  # as many as batches would take


def test_batches_come_back_in_turn_with_what_came_with_them(english, said, speech_and_silence):
    batches = [("a", speech_and_silence, 3), ("b", None, 0)]
    batches += [("c", speech_and_silence, 2), ("d", speech_and_silence, 3), ("e", speech_and_silence, 3)]
    found = list(english.transcribe_batches(batches))
    assert [(given, len(transcripts)) for given, transcripts in found] == [
        (given, rows) for given, _, rows in batches
    ]
    for _, transcripts in found:
        assert_same(transcripts, said[: len(transcripts)])


@pytest.fixture(scope="module")
def base(base_dir):
    return Model.open(base_dir)


@pytest.fixture(scope="module")
def base_states(base, speech):
    return base.encode(speech)


@pytest.fixture(scope="module")
def detecting(base):
    return base.transcriber(max_new_tokens=NEW)


@pytest.fixture(scope="module")
def detected(detecting, base_states):
    return heard(detecting, base_states)


@pytest.fixture(scope="module")
def japanese(base, base_states):
    transcriber = base.transcriber(max_new_tokens=NEW, language="Japanese")
    return heard(transcriber, base_states)


def test_base_detects_english_and_says_what_is_said(detected, texts):
    assert [transcript.language for transcript in detected] == ["en"] * 2
    assert [transcript.text for transcript in detected] == texts
    assert [transcript.text_with_timestamps for transcript in detected] == [None] * 2


def test_a_language_given_is_reported_and_prompted(base, base_states, detected, japanese):
    given = base.transcriber(max_new_tokens=NEW, language="en")
    assert_same(heard(given, base_states), detected)
    assert [transcript.language for transcript in japanese] == ["ja"] * 2
    assert not japanese[0].text.isascii()


def test_every_row_is_prompted_in_its_own_language(
    base, detecting, detected, japanese, base_states, monkeypatch
):
    monkeypatch.setattr(encoded_windows, "find_languages", lambda *_: (["ja", "en"], [None] * 2))
    mixed = heard(detecting, base_states)
    assert_same(mixed, [japanese[0], detected[1]])
    assert abs(mixed[1].avg_logprob - japanese[1].avg_logprob) > 0.01  # the prompt matters to both rows


def test_a_checkpoint_limits_its_transcripts_by_max_length(base, base_states):
    limited = base.transcriber(language="en", max_length=7)  # four of them are the prompt
    transcripts = heard(limited, base_states)
    assert [len(transcript.tokens) for transcript in transcripts] == [3, 3]


def test_times_of_a_short_recording_end_with_it_and_its_tokens_are_as_decoded(
    english, said, speech_and_silence
):
    [found, *_] = english.collect(english.dispatch(speech_and_silence, frames=[90, 3000, 3000]))
    assert found.tokens == said[0].tokens
    assert [(segment.start, segment.end) for segment in found.segments] == [(0.0, 0.9)]
    assert found.text_with_timestamps == f"<|0.00|> {found.text}<|0.90|>"
