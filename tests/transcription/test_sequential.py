"""A real model transcribes real long recordings as OpenAI's code does, many at once as one at a time."""

from typing import Any

import numpy as np
import pytest

from flax_distil.audio import SAMPLING_RATE
from flax_distil.core import InputError
from flax_distil.transcription import (
    FALLBACK_TEMPERATURES,
    SequentialTranscriber,
    Transcript,
    TranscriptionOptions,
    long_form_defaults,
    make_transcriber,
)
from tests.long_recording import long_recording
from tests.openai_whisper import openai_model
from tests.transcription.models import Model
from tests.transcription.sounds import music, silence, white_noise

BATCH = 3
THRESHOLDS: dict[str, Any] = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6}


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


def transcriber(model: Model, **options: Any) -> SequentialTranscriber:
    found = make_transcriber(
        "sequential", model.transcriber(return_timestamps=True, **options).decoder, batch_size=BATCH
    )
    assert isinstance(found, SequentialTranscriber)
    return found


@pytest.fixture(scope="module")
def english(tiny_en) -> SequentialTranscriber:
    """Conditioned on previous text, with OpenAI's thresholds; all transcribers here share its programs."""
    found = transcriber(
        tiny_en, condition_on_prev_tokens=True, temperature=FALLBACK_TEMPERATURES,
        text_compression_ratio_threshold=2.4, **THRESHOLDS,
    )  # fmt: skip
    found.warm_up()
    return found


def transcribe(by: SequentialTranscriber, **recordings: np.ndarray) -> dict[str, Transcript]:
    return dict(by.transcribe_recordings(recordings.items()))


@pytest.fixture(scope="module")
def minute() -> np.ndarray:
    return long_recording(62)[0]


@pytest.fixture(scope="module")
def recordings(minute) -> dict[str, np.ndarray]:
    """Six of different lengths: as many as two batches."""
    lengths = {"a": 40, "b": 7, "c": 62, "d": 0.1, "e": 33, "f": 12}
    return {
        name: minute[start * SAMPLING_RATE :][: round(seconds * SAMPLING_RATE)]
        for start, (name, seconds) in enumerate(lengths.items())
    }


@pytest.fixture(scope="module")
def together(english, recordings) -> dict[str, Transcript]:
    return transcribe(english, **recordings)


def test_a_minute_of_speech_is_openais_transcript_to_the_token(tiny_en_dir, english, minute):
    ours = transcribe(english, minute=minute)["minute"]
    theirs = openai_model(tiny_en_dir).transcribe(
        minute, temperature=0.0, condition_on_previous_text=True, compression_ratio_threshold=2.4, fp16=False,
        **THRESHOLDS,
    )  # fmt: skip
    segments = [segment for segment in theirs["segments"] if segment["text"]]
    assert ours.temperature == 0.0  # nothing was drawn
    assert ours.text == theirs["text"].strip()
    assert ours.tokens == [token for segment in segments for token in segment["tokens"]]
    assert len(segments) == len(ours.segments) > 10
    for segment, reference in zip(ours.segments, segments, strict=True):
        assert segment.text == reference["text"]
        np.testing.assert_allclose(
            [segment.start, segment.end], [reference["start"], reference["end"]], atol=0.001
        )
        np.testing.assert_allclose(segment.avg_logprob, reference["avg_logprob"], atol=1e-3)


def test_many_at_once_are_as_one_at_a_time(english, recordings, together):
    assert together.keys() == recordings.keys()
    for name, recording in recordings.items():
        alone = transcribe(english, alone=recording)["alone"]
        assert alone.tokens == together[name].tokens
        assert [(s.start, s.end) for s in alone.segments] == [
            (s.start, s.end) for s in together[name].segments
        ]
    assert max(len(transcript.segments) for transcript in together.values()) > 10


def test_short_recordings_are_done_before_long_ones_that_began_with_them(english, recordings, together):
    order = list(together)
    assert order.index("b") < order.index("a") < order.index("c")


def test_after_warming_up_nothing_is_compiled(english, tiny_en, minute, compilations):
    doubtful = transcriber(
        tiny_en, condition_on_prev_tokens=True, logprob_threshold=-0.01, temperature=(0.0, 0.4, 0.6)
    )
    recordings = {
        "fails": minute[: 5 * SAMPLING_RATE],
        "too": minute[: 31 * SAMPLING_RATE],
        "nothing": silence(0),
    }
    found: dict[str, Transcript] = {}
    assert compilations(lambda: found.update(transcribe(doubtful, **recordings))) == []
    assert found["fails"].temperature == found["too"].temperature == 0.6
    assert found["nothing"].text == ""


def test_a_window_tried_again_is_not_encoded_again(tiny_en, english, minute, monkeypatch):
    doubtful = transcriber(tiny_en, logprob_threshold=-0.01, temperature=(0.0, 0.2, 0.4))
    encoded = []
    encode = doubtful.decoder.encode_features
    monkeypatch.setattr(doubtful.decoder, "encode_features", lambda mel: encoded.append(1) or encode(mel))
    transcribe(doubtful, short=minute[: 6 * SAMPLING_RATE])
    assert len(encoded) == 1


@pytest.mark.parametrize("name", ["digital silence", "white noise", "music", "0.1 s of noise", "one sample"])
def test_where_nobody_speaks_nothing_is_heard(tiny_en, english, name):
    nobody = {
        "digital silence": lambda: silence(60),
        "white noise": lambda: white_noise(60),
        "music": lambda: music(60),
        "0.1 s of noise": lambda: white_noise(0.1),
        "one sample": lambda: white_noise(1 / SAMPLING_RATE),
    }
    options = long_form_defaults(TranscriptionOptions())
    by = SequentialTranscriber(tiny_en.transcriber(**vars(options)).decoder, batch_size=BATCH)
    [(_, transcript)] = by.transcribe_recordings([(name, nobody[name]())])
    assert (transcript.text, transcript.segments) == ("", ())


def test_silence_is_cut_out_and_times_are_those_of_the_recording(tiny_en, english, minute):
    plain, filtered = transcriber(tiny_en, **THRESHOLDS), transcriber(tiny_en, vad="energy", **THRESHOLDS)
    speech = minute[: 11 * SAMPLING_RATE]
    wanted = transcribe(plain, speech=speech)["speech"]
    found = transcribe(filtered, apart=np.concatenate([silence(40), speech, silence(40), speech]))["apart"]
    assert found.text == f"{wanted.text} {wanted.text}"
    starts = [segment.start for segment in found.segments]
    expected = [offset + segment.start for offset in (40, 91) for segment in wanted.segments]
    np.testing.assert_allclose(starts, expected, atol=0.3)


def test_timestamps_are_needed(tiny_en):
    with pytest.raises(InputError, match="next window by timestamps: set return_timestamps"):
        SequentialTranscriber(tiny_en.transcriber().decoder, batch_size=1)


def test_the_usual_thresholds_fill_in_what_is_not_given():
    usual = long_form_defaults(TranscriptionOptions(language="en"))
    assert (usual.return_timestamps, usual.language, usual.temperature) == (True, "en", FALLBACK_TEMPERATURES)
    assert (usual.compression_ratio_threshold, usual.logprob_threshold, usual.no_speech_threshold) == (
        1.35,
        -1.0,
        0.6,
    )
    given = TranscriptionOptions(
        text_compression_ratio_threshold=2.4, logprob_threshold=-2.0, no_speech_threshold=0.0
    )
    kept = long_form_defaults(given, keep_temperature=True)
    assert (kept.compression_ratio_threshold, kept.text_compression_ratio_threshold) == (None, 2.4)
    assert (kept.logprob_threshold, kept.no_speech_threshold, kept.temperature) == (-2.0, 0.0, (0.0,))
