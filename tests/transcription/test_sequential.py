"""A real model transcribes real long recordings as OpenAI's code does, many at once as one at a time."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.text.normalizers import get_normalizer
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import FALLBACK_TEMPERATURES, TranscriptionOptions, long_form_defaults
from flax_distil.transcription.results import TranscribedSegment, Transcript
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from flax_distil.transcription.sequential.vad_filter import collect_speech
from tests.long_recording import long_recording
from tests.openai_whisper import openai_model
from tests.transcription.models import Model
from tests.transcription.sounds import music, silence, white_noise

pytestmark = pytest.mark.integration

BATCH = 2
NEW = 120  # tokens of a window: enough for what is said here, and one short cache
THRESHOLDS: dict[str, Any] = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6}


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


def transcriber(model: Model, **options: Any) -> SequentialTranscriber:
    """Return a transcriber; all of them here share the programs of the first."""
    generator = model.transcriber(**{"return_timestamps": True, "max_new_tokens": NEW} | options).generator
    found = make_transcriber("sequential", generator, batch_size=BATCH)
    assert isinstance(found, SequentialTranscriber)
    return found


@pytest.fixture(scope="module")
def english(tiny_en) -> SequentialTranscriber:
    """With OpenAI's thresholds and temperatures, warmed up."""
    found = transcriber(
        tiny_en, temperature=FALLBACK_TEMPERATURES, compression_ratio_threshold=2.4, **THRESHOLDS
    )
    found.warm_up()
    return found


def transcribe(by: SequentialTranscriber, **recordings: np.ndarray) -> dict[str, Transcript]:
    return dict(by.transcribe_recordings(recordings.items()))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return long_recording(36)[0]


@pytest.fixture(scope="module")
def recordings(speech) -> dict[str, np.ndarray]:
    """Six of different lengths: as many as three batches."""
    lengths = {"a": 31, "b": 5, "c": 36, "d": 0.1, "e": 8, "f": 3}
    return {
        name: speech[start * SAMPLING_RATE :][: round(seconds * SAMPLING_RATE)]
        for start, (name, seconds) in enumerate(lengths.items())
    }


@pytest.fixture(scope="module")
def together(english, recordings) -> dict[str, Transcript]:
    return transcribe(english, **recordings)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of OpenAI's tokenizer
def test_a_recording_of_two_windows_is_openais_transcript_to_the_token(tiny_en_dir, english, speech):
    ours = transcribe(english, speech=speech)["speech"]
    theirs = openai_model(tiny_en_dir).transcribe(
        speech, temperature=0.0, condition_on_previous_text=False, compression_ratio_threshold=2.4,
        sample_len=NEW, fp16=False, **THRESHOLDS,
    )  # fmt: skip
    segments = [segment for segment in theirs["segments"] if segment["text"]]
    assert ours.temperature == 0.0  # nothing was drawn
    assert ours.text == theirs["text"].strip()
    assert ours.tokens == [token for segment in segments for token in segment["tokens"]]
    assert len(segments) == len(ours.segments) > 10
    for segment, reference in zip(ours.segments, segments, strict=True):
        assert segment.text == reference["text"]
        times = [reference["start"], reference["end"]]
        np.testing.assert_allclose([segment.start, segment.end], times, atol=0.001)
        np.testing.assert_allclose(segment.avg_logprob, reference["avg_logprob"], atol=1e-3)


@pytest.mark.slow
def test_many_at_once_are_as_one_at_a_time(english, recordings, together):
    def spans(transcript: Transcript) -> list[tuple[float, float | None]]:
        return [(segment.start, segment.end) for segment in transcript.segments]

    assert together.keys() == recordings.keys()
    for name, recording in recordings.items():
        alone = transcribe(english, alone=recording)["alone"]
        assert alone.tokens == together[name].tokens
        assert spans(alone) == spans(together[name])
    assert max(len(transcript.segments) for transcript in together.values()) > 10


def test_what_is_finished_comes_first_and_makes_room(together):
    order = list(together)
    assert order[0] == "b"
    assert order.index("a") < order.index("c")


def test_after_warming_up_nothing_is_compiled_and_windows_tried_again_are_not_encoded_again(
    tiny_en, english, speech, compilations, monkeypatch
):
    doubtful = transcriber(tiny_en, logprob_threshold=-0.01, temperature=(0.0, 0.4, 0.6))
    encoded: list[int] = []
    encode = doubtful.generator.encode_features
    monkeypatch.setattr(
        doubtful.generator, "encode_features", lambda mel: encoded.append(len(mel)) or encode(mel)
    )
    recordings = {"fails": speech[: 5 * SAMPLING_RATE], "empty": silence(0)}
    found: dict[str, Transcript] = {}
    assert compilations(lambda: found.update(transcribe(doubtful, **recordings))) == []
    assert (found["fails"].temperature, encoded) == (0.6, [1])
    assert found["empty"].text == ""


def test_a_window_tried_again_beside_a_new_one_is_not_encoded_again(tiny_en, english, speech, monkeypatch):
    """Every window fails once, so one that is new comes beside one that is tried again."""
    by = transcriber(tiny_en, logprob_threshold=-0.01, temperature=(0.0, 0.6))
    encoded: list[int] = []
    encode = by.generator.encode_features
    monkeypatch.setattr(by.generator, "encode_features", lambda mel: encoded.append(len(mel)) or encode(mel))
    short = {str(start): speech[start * SAMPLING_RATE :][: 5 * SAMPLING_RATE] for start in (0, 8, 16)}
    alone = {}
    for name, samples in short.items():
        alone |= transcribe(by, **{name: samples})
    windows, encoded[:] = sum(encoded), []
    together = transcribe(by, **short)
    assert {name: one.tokens for name, one in together.items()} == {n: one.tokens for n, one in alone.items()}
    assert sum(encoded) == windows


def test_where_nobody_speaks_nothing_is_heard(tiny_en, english):
    usual = long_form_defaults(TranscriptionOptions(max_new_tokens=NEW))
    options = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
    nobody = {
        "digital silence": silence(60),
        "white noise": white_noise(31),
        "music": music(31),
        "0.1 s of noise": white_noise(0.1),
        "one sample": white_noise(1 / SAMPLING_RATE),
    }
    found = transcribe(transcriber(tiny_en, **options), **nobody)
    assert {name: transcript.text for name, transcript in found.items()} == dict.fromkeys(nobody, "")
    assert not any(transcript.segments for transcript in found.values())


def test_with_vad_only_speech_is_transcribed_and_times_are_those_of_the_recording(tiny_en, english, speech):
    part = speech[: 11 * SAMPLING_RATE]
    recording = np.concatenate([silence(40), part, silence(40), part])
    kept, times = collect_speech(recording, VoiceActivity("energy"))
    cut = transcribe(english, kept=kept)["kept"]
    whole = transcribe(transcriber(tiny_en, vad="energy", **THRESHOLDS), whole=recording)["whole"]
    assert whole.tokens == cut.tokens
    assert whole.segments == tuple(map(times.restore, cut.segments))
    starts = np.array([segment.start for segment in whole.segments])
    assert (((starts > 39) & (starts < 51)) | ((starts > 90) & (starts < 102))).all()
    assert whole.text.count("To increase your speaking volume") == 2


def test_batches_are_as_large_as_there_is_work_and_a_long_recording_does_not_hold_up_short_ones(
    tiny_en, english, speech, monkeypatch
):
    by = transcriber(tiny_en, **THRESHOLDS)
    sizes: list[int] = []
    encode = by.generator.encode_features
    monkeypatch.setattr(by.generator, "encode_features", lambda mel: sizes.append(len(mel)) or encode(mel))
    short = speech[: 3 * SAMPLING_RATE]
    found = transcribe(by, long=speech[: 12 * SAMPLING_RATE], one=short, two=short)
    assert sizes[:2] == [1, 2]  # the first window of the long one, and both short ones
    assert set(sizes[2:]) <= {1}
    assert found.keys() == {"one", "two", "long"}
    assert len(found["long"].segments) > 2


def test_segments_are_told_as_they_are_found(english, speech):
    told: list[tuple[str, TranscribedSegment]] = []
    taken: list[int] = []

    def source():
        for name in ("first", "second", "third"):
            yield name, speech[: 12 * SAMPLING_RATE]
            taken.append(len(told))

    found = dict(
        english.transcribe_recordings(source(), on_segment=lambda name, one: told.append((name, one)))
    )
    for name, transcript in found.items():
        assert tuple(segment for of, segment in told if of == name) == transcript.segments != ()
    assert taken[-1] > 0  # the third was taken when those of the first were known


def test_none_makes_a_batch_of_what_is_there(english, speech):
    short = speech[: 3 * SAMPLING_RATE]
    taken: list[str] = []

    def source():
        for name in ("one", "two"):
            taken.append(name)
            yield name, short
            yield None

    results = english.transcribe_recordings(source())
    assert next(results)[0] == "one"
    assert taken == ["one"]
    assert [name for name, _ in results] == ["two"]


def test_timestamps_are_needed(tiny_en):
    with pytest.raises(InputError, match="next window by timestamps: set return_timestamps"):
        SequentialTranscriber(tiny_en.transcriber().generator, batch_size=1)


def test_the_usual_thresholds_fill_in_what_is_not_given():
    usual = long_form_defaults(TranscriptionOptions(language="en"))
    assert (usual.return_timestamps, usual.language, usual.temperature) == (True, "en", FALLBACK_TEMPERATURES)
    assert usual.thresholds == (None, 1.35, -1.0, 0.6)
    given = TranscriptionOptions(
        compression_ratio_threshold=2.4, logprob_threshold=-2.0, no_speech_threshold=0.0, temperature=(0.0,)
    )
    kept = long_form_defaults(given)
    assert (kept.thresholds, kept.temperature) == ((2.4, None, -2.0, 0.0), (0.0,))


@pytest.mark.parametrize("name", ["compression_ratio", "logprob", "no_speech"])
def test_a_threshold_that_is_off_is_not_filled_in(name):
    chosen = long_form_defaults(TranscriptionOptions(**{f"{name}_threshold": "off"})).thresholds
    usual = {"token_compression_ratio": 1.35, "logprob": -1.0, "no_speech": 0.6, "compression_ratio": None}
    left_out = [name, "token_compression_ratio"] if name == "compression_ratio" else [name]
    assert chosen._asdict() == usual | dict.fromkeys(left_out)


@pytest.mark.slow
def test_three_hours_are_transcribed_in_bounded_memory(tiny_en_dir):
    script = Path(__file__).with_name("three_hours.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", script, tiny_en_dir], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Windows begin elsewhere than in a minute alone, which changes a word here and there.
    wer = sample_wer(" ".join([found["minute"]] * 6), found["text"], get_normalizer("en"))
    assert wer is not None
    assert wer < 5
    # A window may begin up to 30 s before the speech, and tiny.en take all of that for the first segment.
    starts = np.array(found["starts"]) + 30
    assert (starts % 1800 < 30 + found["minute_seconds"]).all()
    assert np.unique(starts // 1800).tolist() == [0, 1, 2, 3, 4, 5]
    # samples, features half as large, and what was there already
    grown = found["peak_bytes"] - found["peak_bytes_before"]
    assert found["samples_bytes"] < grown < 2 * found["samples_bytes"]
