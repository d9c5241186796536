"""Mode vad: packed windows are heard as short recordings are, and their times are those of the recording."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.speech_runs import Segment
from flax_distil.audio.speech_windows import SpeechWindow, speech_windows
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.text.normalizers import get_normalizer
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.results import TranscribedSegment, Transcript
from flax_distil.transcription.vad.recording import PackedRecording
from tests.long_recording import long_recording
from tests.transcription.models import Model


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


def transcriber(model: Model, mode: str = "vad", *, batch_size: int = 4, **options: Any) -> Any:
    usual = TranscribeMode(mode=mode).with_defaults(TranscriptionOptions(**{"temperature": (0.0,)} | options))
    chosen = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
    return make_transcriber(mode, model.transcriber(**chosen).generator, batch_size=batch_size)


@pytest.fixture(scope="module")
def recordings() -> dict[str, np.ndarray]:
    """Two recordings of 40 s, one with a long silence in it, one without speech, and one without samples."""
    one, other = (long_recording(40.0, seed=seed)[0] for seed in (0, 1))
    return {
        "one": one,
        "silent": np.zeros(5 * SAMPLING_RATE, np.float32),
        "gap": np.concatenate([other[:320_000], np.zeros(600_000, np.float32), other[320_000:]]),
        "empty": np.zeros(0, np.float32),
    }


@pytest.fixture(scope="module")
def together(tiny_en, recordings) -> dict[str, Transcript]:
    return dict(transcriber(tiny_en).transcribe_recordings(recordings.items()))


@pytest.mark.slow
def test_recordings_come_in_order_and_say_what_they_say_alone(tiny_en, recordings, together):
    assert list(together) == list(recordings)
    for name in ("one", "gap"):
        [(_, alone)] = transcriber(tiny_en, batch_size=1).transcribe_recordings([(name, recordings[name])])
        assert alone.text == together[name].text
        assert [(s.start, s.end) for s in alone.segments] == [
            (s.start, s.end) for s in together[name].segments
        ]


def test_a_window_is_heard_as_a_short_recording_is(tiny_en, recordings, together):
    windows = speech_windows([recordings["gap"]], VoiceActivity("silero"), longest_seconds=30.0)
    short = transcriber(tiny_en, "short")
    given = [(index, window.samples(recordings["gap"])) for index, window in enumerate(windows)]
    found = [transcript for _, transcript in short.transcribe_recordings(given)]
    assert together["gap"].text == " ".join(transcript.text for transcript in found)
    assert together["gap"].tokens == [token for transcript in found for token in transcript.tokens]


def test_silence_has_no_text(together):
    for name in ("silent", "empty"):
        assert together[name].text == ""
        assert together[name].segments == ()
        assert together[name].no_speech_prob == 1.0


@pytest.mark.parametrize(
    "options",
    [{"return_timestamps": True}, pytest.param({"word_timestamps": True}, marks=pytest.mark.slow)],
)
def test_times_are_those_of_the_recording(tiny_en, recordings, options):
    told: list[tuple[str, TranscribedSegment]] = []
    found = dict(
        transcriber(tiny_en, **options).transcribe_recordings(
            recordings.items(), on_segment=lambda name, segment: told.append((name, segment))
        )
    )
    transcript = found["gap"]
    assert [segment for name, segment in told if name == "gap"] == list(transcript.segments)
    times = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    assert times[-1] <= len(recordings["gap"]) / SAMPLING_RATE
    silence = (20.0 + 0.5, 20.0 + 37.5 - 0.5)
    assert not [s for s in transcript.segments if s.start < silence[1] and s.end > silence[0]]
    assert any(segment.start > silence[1] for segment in transcript.segments)
    if "word_timestamps" in options:
        words = [word for segment in transcript.segments for word in segment.words or ()]
        assert "".join(word.text for word in words).split() == transcript.text.split()
        assert not [word for word in words if word.start < silence[1] and word.end > silence[0]]


@pytest.mark.slow
def test_long_recordings_have_few_errors(tiny_en, recordings, together):
    text = long_recording(40.0, seed=0)[1]
    found = sample_wer(text, together["one"].text, get_normalizer("en"))
    sequential = dict(transcriber(tiny_en, "sequential").transcribe_recordings([("one", recordings["one"])]))
    other = sample_wer(text, sequential["one"].text, get_normalizer("en"))
    assert found is not None
    assert other is not None
    assert found <= other + 5.0  # of about 70 words


def _transcript(*segments: tuple[float, float | None]) -> Transcript:
    made = tuple(
        TranscribedSegment(
            start=start, end=end, text=f" {start:g}", tokens=(1,), avg_logprob=-0.5, no_speech_prob=0.0,
            temperature=0.0,
        )
        for start, end in segments
    )  # fmt: skip
    return Transcript(
        text="", text_with_timestamps="", tokens=[1, 2], token_logprobs=[-0.5] * 3, avg_logprob=-0.5,
        no_speech_prob=0.1, language="en", segments=made,
    )  # fmt: skip


def test_speech_behind_the_last_timestamp_gets_a_window_of_its_own():
    window = SpeechWindow((Segment(start=160_000, stop=480_000),))  # from 10 to 30 s
    recording = PackedRecording([window], seconds=60.0, language="en")
    rest = recording.add(window, _transcript((0.0, 4.0), (4.0, 12.0)))
    assert rest == SpeechWindow((Segment(start=352_000, stop=480_000),))
    assert not recording.is_finished
    assert [(s.start, s.end) for s in recording.take_segments()] == [(10.0, 14.0), (14.0, 22.0)]
    assert recording.add(rest, _transcript((0.0, None))) is None
    assert recording.is_finished
    assert [(s.start, s.end) for s in recording.transcript().segments][2:] == [(22.0, 30.0)]


@pytest.mark.parametrize("segments", [[(0.0, 19.0)], [(0.0, None)], []])
def test_a_window_that_is_heard_to_its_end_leaves_nothing(segments):
    window = SpeechWindow((Segment(start=0, stop=320_000),))
    recording = PackedRecording([window], seconds=20.0, language="en")
    assert recording.add(window, _transcript(*segments)) is None
    assert recording.is_finished


def test_a_model_that_says_nothing_of_the_rest_ends_the_window():
    window = SpeechWindow((Segment(start=0, stop=320_000),))
    recording = PackedRecording([window], seconds=20.0, language="en")
    rest = recording.add(window, _transcript((0.0, 10.0)))
    assert rest is not None
    assert recording.add(rest, _transcript()) is None
    assert recording.is_finished


@pytest.mark.parametrize("option", [{"condition_on_prev_tokens": True}, {"clip_timestamps": "0,5"}])
def test_options_of_windows_that_depend_on_each_other_are_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        TranscribeMode(mode="vad").check(TranscriptionOptions(**option))
