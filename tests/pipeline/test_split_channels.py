"""Channels that are transcribed apart: cut from a recording, and put together in order of time."""

import json

import numpy as np
import pytest
import soundfile

from flax_distil import FlaxWhisperPipeline
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.load_ahead import read_ahead, read_recording
from flax_distil.pipeline.inputs.read_audio import ChannelChoice
from flax_distil.pipeline.inputs.split_channels import ChannelJoiner, ChannelName, split_recordings
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.transcription.results import TranscribedSegment, Transcript


def transcript(*segments: tuple[float, float, str], language: str = "en") -> Transcript:
    return Transcript(
        text=" ".join(text for *_, text in segments),
        text_with_timestamps="",
        tokens=list(range(len(segments))),
        token_logprobs=[-0.5] * len(segments),
        avg_logprob=-0.5,
        no_speech_prob=0.1,
        language=language,
        segments=tuple(
            TranscribedSegment(
                start=start, end=end, text=f" {text}", tokens=(1,), avg_logprob=-0.5, no_speech_prob=0.1,
                temperature=0.0,
            )
            for start, end, text in segments
        ),
    )  # fmt: skip


def outcome(channel: int, *segments: tuple[float, float, str], language: str = "en") -> TranscriptionOutcome:
    name = ChannelName("call", channel, 2)
    return TranscriptionOutcome(name=name, seconds=9.0, transcript=transcript(*segments, language=language))


def test_a_recording_read_with_its_channels_apart_becomes_one_of_each():
    samples_CW = np.arange(6, dtype=np.float32).reshape(2, 3)
    mono = LoadedAudio("mono", samples_CW[0], None)
    split = list(split_recordings([mono, None, LoadedAudio("call", samples_CW.reshape(-1), None, 2)]))
    assert split[0] is mono
    assert split[1] is None
    for channel, recording in enumerate(split[2:]):
        assert recording.name == ChannelName("call", channel, 2)
        np.testing.assert_array_equal(recording.samples, samples_CW[channel])
    assert len(split) == 4


def join_outcomes(outcomes):
    return [joined for joined in map(ChannelJoiner().add, outcomes) if joined is not None]


def test_segments_of_all_channels_come_in_order_of_time_with_their_channel():
    other = TranscriptionOutcome(name="mono", seconds=1.0, transcript=transcript((0.0, 1.0, "alone")))
    answers = outcome(1, (1.0, 2.0, "hello"), (4.0, 5.0, "fine"), language="de")
    questions = outcome(0, (0.0, 1.0, "hello"), (2.0, 4.5, "how are you"), (4.0, 6.0, "good"))
    alone, call = join_outcomes([answers, other, questions])
    assert alone is other
    assert (call.name, call.seconds) == ("call", 9.0)
    assert call.transcript is not None
    found = [(segment.channel, segment.start, segment.text) for segment in call.transcript.segments]
    assert found == [
        (0, 0.0, " hello"), (1, 1.0, " hello"), (0, 2.0, " how are you"),
        (0, 4.0, " good"), (1, 4.0, " fine"),
    ]  # fmt: skip
    assert call.transcript.text == "hello hello how are you good fine"
    assert call.transcript.language == "en"
    assert len(call.transcript.tokens) == 5


def test_the_language_is_that_of_the_first_channel_in_which_somebody_speaks():
    (call,) = join_outcomes([outcome(0, language="en"), outcome(1, (0.0, 1.0, "ja"), language="de")])
    assert call.transcript is not None
    assert (call.transcript.language, call.transcript.text) == ("de", "ja")


def test_an_error_of_one_channel_is_that_of_the_recording():
    error = InputError("too long")
    failed = TranscriptionOutcome(name=ChannelName("call", 1, 2), seconds=0.0, error=error)
    (call,) = join_outcomes([outcome(0, (0.0, 1.0, "hello")), failed])
    assert (call.name, call.transcript, call.error) == ("call", None, error)


@pytest.fixture(scope="module")
def call_file(prompts_dir, tmp_path_factory):
    """Two speakers, one after the other, on a channel each."""
    files = sorted((prompts_dir / "train").glob("*.ogg"))
    first, second = [decode_audio(file) for file in files[:2]]
    left = np.concatenate([first, np.zeros_like(second)])
    right = np.concatenate([np.zeros_like(first), second])
    path = tmp_path_factory.mktemp("calls") / "call.wav"
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLING_RATE, subtype="FLOAT")
    return path, left, right


def test_channels_are_read_from_whatever_a_recording_is_given_as(call_file):
    path, left, right = call_file
    both = np.stack([left, right])
    given = [
        path, str(path), path.read_bytes(), {"path": str(path)}, {"bytes": path.read_bytes(), "path": None},
        both, {"array": both, "sampling_rate": SAMPLING_RATE},
    ]  # fmt: skip
    for inputs in given:
        apart = read_recording("call", inputs, channels=ChannelChoice(split_channels=True))
        assert apart.channels == 2
        np.testing.assert_array_equal(apart.samples.reshape(2, -1), both)
        one = read_recording("call", inputs, channels=ChannelChoice(channel=1))
        assert one.channels == 0
        np.testing.assert_array_equal(one.samples, right)
    (ahead,) = [
        read for read in read_ahead([("call", path)], channels=ChannelChoice(split_channels=True)) if read
    ]
    assert ahead.channels == 2


@pytest.mark.parametrize("inputs", ["path", "array"])
def test_a_channel_that_a_recording_has_not_is_its_error(call_file, inputs):
    given = call_file[0] if inputs == "path" else np.stack(call_file[1:])
    read = read_recording("call", given, channels=ChannelChoice(channel=2))
    assert str(read.error).startswith("cannot take channel 2 of a")
    assert "it has 2" in str(read.error)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channel": -1}, "channel -1 is not the number of a channel: channels are counted from 0"),
        ({"channel": 0, "split_channels": True}, "choose one of them"),
    ],
)
def test_a_choice_of_channels_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        ChannelChoice(**options)


@pytest.mark.slow
def test_each_speaker_of_a_call_is_transcribed_and_told_apart(call_file, tiny_en_dir, tmp_path):
    path, left, right = call_file
    pipeline = FlaxWhisperPipeline(tiny_en_dir, batch_size=2)
    alone = [pipeline(samples)["text"] for samples in (left, right)]
    for result in (pipeline(path, split_channels=True), *pipeline([str(path)], split_channels=True)):
        assert [chunk["channel"] for chunk in result["chunks"]] == [0, 1]
        assert [chunk["text"].strip() for chunk in result["chunks"]] == alone
        assert result["text"] == " ".join(alone)
    words = pipeline(path, split_channels=True, return_timestamps="word")["chunks"]
    assert {word["channel"] for word in words} == {0, 1}
    assert pipeline(path, channel=1)["text"] == alone[1]
    flags = ["transcribe", str(path), f"--model={tiny_en_dir}", f"--output_dir={tmp_path}"]
    assert main([*flags, "--split_channels"]) == 0
    document = json.loads((tmp_path / "call.json").read_text())
    assert [segment["channel"] for segment in document["segments"]] == [0, 1]
    assert main([*flags, "--channel=1", "--overwrite_output_dir"]) == 0
    document = json.loads((tmp_path / "call.json").read_text())
    assert document["text"] == alone[1]
    assert all("channel" not in segment for segment in document["segments"])
