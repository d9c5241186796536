"""Windows that fail are tried again at higher temperatures; those that are silent are not."""

import dataclasses
import types
import warnings
import zlib

import numpy as np
import pytest
import torch
import whisper

from flax_distil.decoding.options import SearchOptions
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decoding_request import DecodingResult
from flax_distil.transcription.fallback import (
    attempt_seed,
    best_attempt,
    fallback_enabled,
    is_silence,
    needs_fallback,
)
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests.transcription.models import Model

NEW = 24
USUAL = TranscriptionOptions(
    temperature=(0.0, 0.5),
    logprob_threshold=-1.0,
    no_speech_threshold=0.6,
    compression_ratio_threshold=2.4,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_en_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


def result(tokenizer, text, *, avg_logprob=-0.3, no_speech_prob=0.1, ended=True) -> DecodingResult:
    tokens = tuple(tokenizer.encode(text))
    logprobs = (avg_logprob,) * (len(tokens) + ended)
    return DecodingResult(
        tokens=tokens, token_logprobs=logprobs, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob,
        temperature=0.0,
    )  # fmt: skip


LOOP = " and so on" * 40


@pytest.mark.parametrize("text", [" A short one.", LOOP])
@pytest.mark.parametrize("avg_logprob", [-0.5, -1.0, -1.5])
@pytest.mark.parametrize("no_speech_prob", [0.6, 0.9])
@pytest.mark.parametrize("left_out", [None, "logprob", "no_speech", "compression_ratio"])
def test_what_fails_and_what_is_silent_is_what_openai_says(
    tokenizer, text, avg_logprob, no_speech_prob, left_out
):
    """OpenAI's own loop over temperatures runs, on a model that says what it is told to."""
    said = result(tokenizer, text, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
    theirs = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6, "compression_ratio_threshold": 2.4}
    if left_out:
        theirs[f"{left_out}_threshold"] = None
    tried = []

    def decode(_, options):
        tried.append(options.temperature)
        return whisper.DecodingResult(
            audio_features=None, language="en", tokens=list(said.tokens), text=text.strip(),
            avg_logprob=avg_logprob, no_speech_prob=no_speech_prob, temperature=options.temperature,
            compression_ratio=compression_ratio(text.strip()),
        )  # fmt: skip

    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves a file open
        whisper.tokenizer.get_tokenizer(False, num_languages=99)
    dims = types.SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448)
    model = types.SimpleNamespace(
        device=torch.device("cpu"), dims=dims, is_multilingual=False, num_languages=99, decode=decode
    )
    transcript = whisper.transcribe(
        model, np.zeros(16_000, np.float32), temperature=(0.0, 0.5), fp16=False, language="en", **theirs
    )
    options = dataclasses.replace(
        USUAL,
        logprob_threshold=theirs["logprob_threshold"],
        no_speech_threshold=theirs["no_speech_threshold"],
        compression_ratio_threshold=theirs["compression_ratio_threshold"],
    )
    assert needs_fallback(said, options, tokenizer) == (tried == [0.0, 0.5])
    if avg_logprob != -1.0:  # at the threshold exactly OpenAI skips without calling it silence
        assert is_silence(said, options) == (transcript["text"] == "")


def test_ratios_of_ids_count_the_end_where_it_was_reached(tokenizer):
    """As transformers does; at a threshold between the two it makes the difference."""
    cut, whole = (result(tokenizer, LOOP, ended=ended) for ended in (False, True))
    bytes_of = [np.asarray(ids, np.uint16).tobytes() for ids in (cut.tokens, (*cut.tokens, 50256))]
    low, high = sorted(len(data) / len(zlib.compress(data)) for data in bytes_of)
    assert low < high
    verdicts = [
        needs_fallback(
            one, TranscriptionOptions(token_compression_ratio_threshold=(low + high) / 2), tokenizer
        )
        for one in (cut, whole)
    ]
    assert sorted(verdicts) == [False, True]


def test_only_thresholds_and_another_temperature_make_windows_fail():
    assert fallback_enabled(USUAL)
    assert not fallback_enabled(dataclasses.replace(USUAL, temperature=(0.0,)))
    assert not fallback_enabled(TranscriptionOptions(temperature=(0.0, 0.5), no_speech_threshold=0.6))


def test_seeds_differ_between_places_and_are_the_same_again():
    seeds = [attempt_seed(dataclasses.replace(USUAL, seed=seed), *place)
             for seed in (0, 1) for place in ((0,), (1,), (1, 0), (1, 2))]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == attempt_seed(USUAL, 0)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir):
    return Model.open(tiny_en_dir)


@pytest.fixture(scope="module")
def strict(tiny_en):
    """Every window but silence fails."""
    transcriber = tiny_en.transcriber(
        max_new_tokens=NEW, temperature=(0.0, 0.7), logprob_threshold=-1e-6, no_speech_threshold=0.3
    )
    transcriber.warm_up(3)
    return transcriber


@pytest.fixture(scope="module")
def faint(speech_and_silence):
    """The same, silence not quite digital: it is decoded."""
    return speech_and_silence + np.float32(2e-7)


@pytest.fixture
def attempts(strict, monkeypatch):
    """What is decoded, attempt by attempt."""
    decoded: list[list[DecodingResult]] = []
    collect = strict.generator.collect
    monkeypatch.setattr(
        strict.generator, "collect", lambda batch: decoded.append(collect(batch)) or decoded[-1]
    )
    return decoded


def test_speech_is_tried_again_and_the_better_attempt_kept_and_silence_has_no_text(strict, faint, attempts):
    *speech, silence = strict.transcribe(faint)
    likely, drawn = attempts
    assert [result.temperature for result in drawn[:2]] == [0.7, 0.7]
    for transcript, one, other in zip(speech, likely, drawn, strict=False):
        assert transcript.avg_logprob == max(one.avg_logprob, other.avg_logprob)
        assert transcript.text
    assert (silence.text, silence.tokens) == ("", [])
    assert silence.no_speech_prob > 0.3


def test_a_retry_depends_on_the_row_alone_and_compiles_nothing(strict, faint, attempts, compilations):
    strict.transcribe(faint)
    assert compilations(lambda: strict.transcribe(faint[[2, 1, 0]])) == []
    (_, drawn), (_, again) = attempts[:2], attempts[2:]
    assert [one.tokens for one in again[1:]] == [one.tokens for one in drawn[1::-1]]


def test_windows_of_a_stream_that_fail_are_decoded_again_as_in_a_batch(strict, faint, compilations):
    alone, found = strict.transcribe(faint), []
    stream = ShortFormTranscriber(strict.generator, batch_size=3, pad_batches=True)
    recordings = list(enumerate([*faint] * 3))
    assert compilations(lambda: found.extend(stream.transcribe_recordings(recordings))) == []
    for number, (name, transcript) in enumerate(found):
        assert (name, transcript.tokens) == (number, alone[number % 3].tokens)
        assert transcript.temperature == alone[number % 3].temperature
    assert len(found) == 9


def test_of_attempts_that_all_failed_the_likeliest_that_does_not_loop_is_kept(tokenizer):
    loop, loops = (result(tokenizer, LOOP, avg_logprob=average) for average in (-0.1, -0.2))
    unlikely, worse = (result(tokenizer, " Please try.", avg_logprob=average) for average in (-1.5, -2.5))
    assert best_attempt([loop, worse, unlikely], USUAL, tokenizer) is unlikely
    assert best_attempt([loops, loop], USUAL, tokenizer) is loop
    untested = dataclasses.replace(USUAL, compression_ratio_threshold="off")
    assert best_attempt([loop, worse, unlikely], untested, tokenizer) is loop


def test_without_failures_or_thresholds_no_states_are_kept_and_nothing_runs_twice(
    tiny_en, strict, speech_and_silence, compilations, monkeypatch
):
    plain = tiny_en.transcriber(max_new_tokens=NEW)
    dispatched = []
    dispatch = plain.generator.dispatch
    monkeypatch.setattr(plain.generator, "dispatch", lambda *a: dispatched.append(a) or dispatch(*a))
    transcripts = []

    def run():
        sent = plain.dispatch(speech_and_silence)
        assert sent.windows.encoder_out is None
        transcripts.extend(plain.collect(sent))

    assert compilations(run) == []  # the first temperature's program is the one of the strict transcriber
    assert len(dispatched) == 1
    assert transcripts[2].tokens != []


@pytest.mark.parametrize(("threshold", "is_told"), [(1.0, True), (None, False)])
def test_digital_silence_has_no_text_however_sure_the_model_is_of_one(
    tiny_en, strict, speech_and_silence, threshold, is_told, compilations
):
    usual = tiny_en.transcriber(max_new_tokens=NEW, no_speech_threshold=threshold)
    transcripts = []
    assert compilations(lambda: transcripts.extend(usual.transcribe(speech_and_silence))) == []
    assert [bool(transcript.text) for transcript in transcripts] == [True, True, not is_told]
    assert transcripts[2].no_speech_prob > 0.3


def test_searches_that_draw_nothing_take_no_settings_of_draws():
    for search in (SearchOptions(top_k=5), SearchOptions(top_p=0.5), SearchOptions(best_of=2)):
        with pytest.raises(ValueError, match="is given, but nothing is drawn at temperature 0"):
            TranscriptionOptions(search=search)
        TranscriptionOptions(search=search, temperature=(0.0, 0.2))
