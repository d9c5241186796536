"""Channels that are transcribed apart: cut from a recording, and put together in order of time."""

import numpy as np

from flax_distil.core import InputError
from flax_distil.transcription import TranscribedSegment, Transcript
from flax_distil.workflows.audio_inputs import ReadRecording
from flax_distil.workflows.channel_split import ChannelName, join_outcomes, split_recordings
from flax_distil.workflows.outcomes import Outcome


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


def outcome(channel: int, *segments: tuple[float, float, str], language: str = "en") -> Outcome:
    name = ChannelName("call", channel, 2)
    return Outcome(name=name, seconds=9.0, transcript=transcript(*segments, language=language))


def test_a_recording_read_with_its_channels_apart_becomes_one_of_each():
    samples_CW = np.arange(6, dtype=np.float32).reshape(2, 3)
    mono = ReadRecording("mono", samples_CW[0], None)
    split = list(split_recordings([mono, None, ReadRecording("call", samples_CW.reshape(-1), None, 2)]))
    assert split[0] is mono
    assert split[1] is None
    for channel, recording in enumerate(split[2:]):
        assert recording.name == ChannelName("call", channel, 2)
        np.testing.assert_array_equal(recording.samples, samples_CW[channel])
    assert len(split) == 4


def test_segments_of_all_channels_come_in_order_of_time_with_their_channel():
    other = Outcome(name="mono", seconds=1.0, transcript=transcript((0.0, 1.0, "alone")))
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
    failed = Outcome(name=ChannelName("call", 1, 2), seconds=0.0, error=error)
    (call,) = join_outcomes([outcome(0, (0.0, 1.0, "hello")), failed])
    assert (call.name, call.transcript, call.error) == ("call", None, error)
