"""Where a long recording goes on after a window, and what it keeps; no model is needed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_distil.audio.long_mel import LongMel
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decoding_request import DecodingResult
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.results import AlignedWord, Transcript
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.split_by_timestamps import split_by_timestamps

FIRST = 50363  # <|0.00|> of English-only vocabularies
THRESHOLDS: dict[str, Any] = {
    "token_compression_ratio_threshold": 1.35,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
}


@pytest.fixture(scope="module")
def tokenizer(tiny_en_dir: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


def recording(tokenizer: WhisperTokenizer, *, seconds: float = 100, log10: float = 0.0, **options: Any):
    """Return a recording of nothing but noise as loud as said."""
    chosen = TranscriptionOptions(return_timestamps=True, **options)
    mel = LongMel(np.full((round(seconds * 100), 80), log10, np.float32), log10)
    return SequentialRecording(
        mel, tokenizer=tokenizer, options=chosen, prompts=Prompts(tokenizer, chosen), limit=224
    )


def result(tokenizer: WhisperTokenizer, text: str, **scores: float) -> DecodingResult:
    tokens = tuple(tokenizer.encode(text))
    given = {"avg_logprob": -0.1, "no_speech_prob": 0.01, "temperature": 0.0} | scores
    logprobs = (given["avg_logprob"],) * (len(tokens) + 1)
    return DecodingResult(tokens=tokens, token_logprobs=logprobs, **given)


def hear(one: SequentialRecording, tokenizer: WhisperTokenizer, text: str, **scores: float) -> None:
    """Decode the present window into a text, or fail."""
    scores = {"temperature": one.request().temperature} | scores
    window = one.receive(result(tokenizer, text, **scores))
    if window is not None:
        one.accept(window)


def spans(transcript: Transcript) -> list[tuple[float, float | None, str]]:
    return [(segment.start, segment.end, segment.text) for segment in transcript.segments]


@pytest.mark.parametrize(
    ("text", "frames", "cut"),
    [
        # pairs: what stands behind the last is left to the next window
        (
            "<|0.00|> One.<|2.00|><|2.50|> Two.<|4.00|><|4.00|> Thr",
            3000,
            ([(0, 200), (250, 400)], 400, False),
        ),
        # pairs, and a single timestamp at the end: nothing is said behind it
        ("<|0.00|> One.<|2.00|><|2.50|> Two.<|4.00|>", 3000, ([(0, 200), (250, 400)], 3000, True)),
        # a pair at the end
        ("<|0.00|> One.<|2.00|><|2.00|>", 3000, ([(0, 200)], 200, False)),
        # no pair: one segment, up to the timestamp or the end of what belongs to the recording
        ("<|0.40|> One.<|2.00|>", 3000, ([(0, 200)], 3000, True)),
        ("<|0.00|> One.", 1234, ([(0, 1234)], 1234, False)),
        ("", 1234, ([(0, 1234)], 1234, False)),
    ],
)
def test_windows_are_cut_at_pairs_of_timestamps(tokenizer, text, frames, cut):
    tokens = tokenizer.encode(text)
    found = split_by_timestamps(tokens, tokenizer.special, frames)
    segments, advance, single_timestamp_ending = cut
    assert [(start, end) for start, end, _ in found.spans] == segments
    assert (found.advance, found.single_timestamp_ending) == (advance, single_timestamp_ending)


def test_times_add_up_and_what_hangs_over_is_said_again(tokenizer):
    one = recording(tokenizer, seconds=40)
    hear(one, tokenizer, "<|1.00|> One.<|2.00|><|2.50|> Two.<|12.34|><|12.34|> Thr")
    hear(one, tokenizer, "<|0.00|> Three.<|3.00|><|5.00|> Four.<|6.00|>")
    assert one.is_finished
    transcript = one.transcript()
    assert spans(transcript) == [
        (1.0, 2.0, " One."), (2.5, 12.34, " Two."), (12.34, 15.34, " Three."), (17.34, 18.34, " Four."),
    ]  # fmt: skip
    assert transcript.text == "One. Two. Three. Four."
    assert transcript.text_with_timestamps.startswith(
        "<|1.00|> One.<|2.00|><|2.50|> Two.<|12.34|><|12.34|> Thr"
    )
    assert tokenizer.decode(transcript.tokens, with_timestamps=True) == (
        "<|1.00|> One.<|2.00|><|2.50|> Two.<|12.34|><|0.00|> Three.<|3.00|><|5.00|> Four.<|6.00|>"
    )
    assert len(transcript.token_logprobs) == len(transcript.tokens)


def test_features_begin_at_the_window_and_end_with_the_recording(tokenizer):
    one = recording(tokenizer, seconds=40)
    hear(one, tokenizer, "<|0.00|> One.<|12.00|><|12.00|>")
    features = one.features()
    assert features.shape == (3000, 80)
    assert (features[:2800] == 1).all()  # 28 s are left
    assert (features[2800:] == 0).all()


def test_segments_without_length_or_text_are_dropped(tokenizer):
    one = recording(tokenizer, seconds=20)
    hear(one, tokenizer, "<|1.00|> Nothing.<|1.00|><|2.00|> <|3.00|><|3.00|> Text.<|4.00|>")
    assert spans(one.transcript()) == [(3.0, 4.0, " Text.")]
    assert one.transcript().text == "Text."


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ((-1.5, -1.2, -1.3), "<|0.00|> Unlikely.<|2.00|>"),
        ((-0.5, -0.2, -0.3), "<|0.00|>" + " again and again" * 30 + "<|2.00|>"),
    ],
)
def test_what_fails_is_tried_at_the_next_temperature_and_the_likeliest_attempt_is_kept(
    tokenizer, scores, text
):
    one = recording(tokenizer, seconds=60, temperature=(0.0, 0.4, 0.8), **THRESHOLDS)
    seeds = set()
    for temperature, avg_logprob in zip((0.0, 0.4, 0.8), scores, strict=True):
        assert one.request().temperature == temperature
        seeds.add(one.request().seed)
        hear(one, tokenizer, text, avg_logprob=avg_logprob)
    assert len(seeds) == 3
    assert one.transcript().segments[0].temperature == 0.4
    assert one.transcript().temperature == 0.8  # the highest that was tried
    assert one.request().temperature == 0.0  # the next window begins anew
    assert one.request().seed not in seeds


def test_silence_is_skipped_and_neither_tried_again_nor_kept(tokenizer):
    one = recording(tokenizer, seconds=60, temperature=(0.0, 0.2), **THRESHOLDS)
    hear(one, tokenizer, "<|0.00|> Thank you.<|2.00|>", avg_logprob=-1.2, no_speech_prob=0.7)
    assert one.request().temperature == 0.0
    hear(one, tokenizer, "<|0.00|> Sure.<|2.00|>", avg_logprob=-0.2, no_speech_prob=0.65)
    assert one.is_finished
    assert spans(one.transcript()) == [(30.0, 32.0, " Sure.")]
    assert one.transcript().no_speech_prob == 0.65


@pytest.mark.parametrize(("log10", "asked"), [(-10.0, False), (-8.0, False), (-7.0, True)])
def test_windows_without_a_sound_are_not_decoded(tokenizer, log10, asked):
    assert recording(tokenizer, log10=log10, **THRESHOLDS).is_finished is not asked
    assert not recording(tokenizer, log10=log10).is_finished  # no threshold of silence, no silence


def test_a_recording_without_windows_is_silent(tokenizer):
    transcript = recording(tokenizer, seconds=0).transcript()
    assert (transcript.text, transcript.tokens, transcript.segments) == ("", [], ())
    assert (transcript.no_speech_prob, transcript.avg_logprob) == (1.0, 0.0)


def prompt(one: SequentialRecording, tokenizer: WhisperTokenizer) -> str:
    return tokenizer.decode(one.request().prompt, skip_special_tokens=False, with_timestamps=True)


def test_previous_text_is_the_prompt_until_a_high_temperature(tokenizer):
    one = recording(tokenizer, condition_on_prev_tokens=True, temperature=(0.0, 0.4, 0.6), **THRESHOLDS)
    assert prompt(one, tokenizer) == "<|startoftranscript|>"
    hear(one, tokenizer, "<|0.00|> One.<|2.00|><|2.00|> Tw")
    assert prompt(one, tokenizer) == "<|startofprev|><|0.00|> One.<|2.00|><|startoftranscript|>"
    hear(one, tokenizer, "<|0.00|> Two.<|3.00|><|3.00|>", avg_logprob=-2.0)
    hear(one, tokenizer, "<|0.00|> Two.<|3.00|><|3.00|>")
    assert prompt(one, tokenizer) == (
        "<|startofprev|><|0.00|> One.<|2.00|><|0.00|> Two.<|3.00|><|startoftranscript|>"
    )
    for _ in range(3):  # the first attempt is as good as the last, which was at too high a temperature
        hear(one, tokenizer, "<|0.00|> Four.<|3.00|><|3.00|>", avg_logprob=-2.0)
    assert prompt(one, tokenizer) == "<|startoftranscript|>"


def test_prompts_keep_the_last_223_tokens(tokenizer):
    one = recording(tokenizer, condition_on_prev_tokens=True)
    hear(one, tokenizer, "<|0.00|>" + " word" * 300 + "<|2.00|><|2.00|>")
    assert len(one.request().prompt) == 1 + 223 + 1


def test_an_initial_prompt_lasts_until_something_is_heard_and_a_prefix_for_one_window(tokenizer):
    one = recording(tokenizer, seconds=120, prompt="Spelling", prefix="So", **THRESHOLDS)
    assert prompt(one, tokenizer) == "<|startofprev|> Spelling<|startoftranscript|><|0.00|> So"
    hear(one, tokenizer, "<|0.00|> Uh.<|2.00|>", avg_logprob=-2.0, no_speech_prob=0.9)
    assert prompt(one, tokenizer) == "<|startofprev|> Spelling<|startoftranscript|>"
    hear(one, tokenizer, "<|0.00|> Words.<|2.00|>")
    assert prompt(one, tokenizer) == "<|startoftranscript|>"


def test_the_next_window_begins_behind_the_last_word_unless_nothing_follows_it(tokenizer):
    def word(text: str, start: float, end: float) -> AlignedWord:
        tokens = tuple(tokenizer.encode(text))
        return AlignedWord(text=text, start=start, end=end, probability=0.9, tokens=tokens)

    words = (word(" One", 0.1, 0.6), word(".", 0.6, 0.6), word(" Two", 2.1, 2.6), word(".", 2.6, 2.6))
    for ending, next_start in (("<|3.00|><|3.00|>", 2.6), ("<|3.00|>", 30.0)):
        one = recording(tokenizer, seconds=60, word_timestamps=True)
        window = one.receive(result(tokenizer, f"<|0.00|> One.<|2.00|><|2.00|> Two.{ending}"))
        assert window is not None
        one.accept(window, words)
        assert [[w.text for w in segment.words] for segment in one.transcript().segments] == [
            [" One."],
            [" Two."],
        ]
        follower = one.receive(result(tokenizer, "<|0.00|> Three.<|1.00|>"))
        assert follower is not None
        assert follower.offset == next_start


def test_languages_are_given_or_detected_once(base_dir):
    tokenizer = WhisperTokenizer.from_pretrained(base_dir)
    assert recording(tokenizer, language="de").language == "de"
    one = recording(tokenizer)
    assert one.language is None
    one.set_language({"en": 0.2, "fr": 0.8})
    assert "<|fr|>" in prompt(one, tokenizer)
    assert dataclasses.asdict(one.transcript())["language_probabilities"] == {"en": 0.2, "fr": 0.8}


def at_limit(tokenizer: WhisperTokenizer, text: str) -> DecodingResult:
    """Return a window without an end of text."""
    whole = result(tokenizer, text)
    return dataclasses.replace(whole, token_logprobs=whole.token_logprobs[:-1])


def test_a_window_cut_by_its_limit_goes_on_behind_its_last_pair_or_is_warned_of(tokenizer, caplog):
    one = recording(tokenizer, seconds=60)
    window = one.receive(at_limit(tokenizer, "<|0.00|> One.<|2.00|><|2.00|> Two three"))
    assert window is not None
    one.accept(window)
    assert not caplog.records
    assert one.receive(at_limit(tokenizer, "<|0.00|> Two three four")) is not None
    assert "the window at 2.00 s ends at its limit of" in caplog.text
    assert "up to 32.00 s, is missing" in caplog.text


def test_times_end_with_the_recording(tokenizer):
    one = recording(tokenizer, seconds=0.9)
    hear(one, tokenizer, "<|0.00|> Login.<|0.60|><|0.60|> Please.<|20.56|><|20.56|> Now.<|21.00|>")
    assert spans(one.transcript()) == [(0.0, 0.6, " Login."), (0.6, 0.9, " Please."), (0.9, 0.9, " Now.")]
    assert one.transcript().text_with_timestamps.endswith("<|0.90|> Now.<|0.90|>")


def test_only_the_clips_of_a_recording_are_transcribed(tokenizer):
    one = recording(tokenizer, seconds=100, clip_timestamps=(10.0, 20.0, 50.0))
    assert one.window_frames == 1000
    hear(one, tokenizer, "<|0.00|> One.<|2.00|><|2.00|>")
    assert one.window_frames == 800
    hear(one, tokenizer, "<|0.00|> Two.<|8.00|>")
    assert one.window_frames == 3000  # from 50 s on
    hear(one, tokenizer, "<|0.00|> Three.<|28.00|><|28.00|>")
    assert one.window_frames == 2200
    hear(one, tokenizer, "<|0.00|> Four.<|1.00|>")
    assert one.is_finished
    assert spans(one.transcript()) == [
        (10.0, 12.0, " One."), (12.0, 20.0, " Two."), (50.0, 78.0, " Three."), (78.0, 79.0, " Four.")
    ]  # fmt: skip


@pytest.mark.parametrize("clips", [(200.0,), (100.0, 130.0)])
def test_clips_behind_the_end_hold_nothing(tokenizer, clips):
    assert recording(tokenizer, seconds=100, clip_timestamps=clips).is_finished


def test_the_language_of_a_window_is_that_of_its_prompt_and_the_first_that_of_the_transcript(base_dir):
    tokenizer = WhisperTokenizer.from_pretrained(base_dir)
    chosen = TranscriptionOptions(return_timestamps=True, multilingual=True, task="transcribe")
    mel = LongMel(np.zeros((6000, 80), np.float32), 0.0)
    one = SequentialRecording(
        mel, tokenizer=tokenizer, options=chosen, prompts=Prompts(tokenizer, chosen), limit=224
    )
    one.set_language({"en": 0.9, "fr": 0.1})
    one.set_window_language({"en": 0.9, "fr": 0.1})
    assert prompt(one, tokenizer) == "<|startoftranscript|><|en|><|transcribe|>"
    hear(one, tokenizer, "<|0.00|> One.<|30.00|>")
    one.set_window_language({"en": 0.2, "fr": 0.8})
    assert prompt(one, tokenizer) == "<|startoftranscript|><|fr|><|transcribe|>"
    assert (one.transcript().language, one.transcript().language_probability) == ("en", 0.9)
