"""Several channels: their mean, one of them, or the louder where they cancel each other out."""

import io
import itertools
import logging

import numpy as np
import pytest
import soundfile

from flax_distil.audio.reading import decoding
from flax_distil.audio.reading.decoding import decode_audio, decode_channels, open_audio
from flax_distil.audio.reading.errors import AudioError
from tests.audio.encoders import PROMPTS, RATE, muxed


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return decode_audio(PROMPTS / "train" / "agent-incorrect.ogg")


def stereo(*channels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack(channels, axis=1), RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize("level", [-1.0, -0.95, -0.8])
def test_where_channels_cancel_each_other_out_the_louder_is_taken(
    speech: np.ndarray, level: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_cancelled", itertools.count(1))
    for encoded in (stereo(speech, level * speech), stereo(level * speech, speech)):
        with caplog.at_level(logging.WARNING):
            decoded = decode_audio(encoded)
        np.testing.assert_allclose(decoded * np.sign(np.vdot(decoded, speech)), speech, atol=1e-6)
        with open_audio(encoded) as blocks:
            np.testing.assert_array_equal(np.concatenate(list(blocks)), decoded)
    assert caplog.text.count("cancel each other out") == 4


def test_the_mean_is_taken_of_channels_that_do_not_cancel_each_other_out(
    speech: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    other = np.roll(speech, 8_000)
    silent = np.zeros_like(speech)
    for channels in ([speech, other], [speech, silent], [silent] * 5 + [speech], [silent, silent]):
        mean = np.mean(channels, axis=0)
        np.testing.assert_allclose(decode_audio(stereo(*channels)), mean, atol=1e-7)
    assert not caplog.records


def test_one_channel_is_taken_where_it_is_asked_for(speech: np.ndarray) -> None:
    other = np.roll(speech, 8_000)
    encoded = stereo(speech, other)
    np.testing.assert_array_equal(decode_audio(encoded, channel=0), speech)
    np.testing.assert_array_equal(decode_audio(encoded, channel=1), other)
    with open_audio(encoded, channel=1) as blocks:
        np.testing.assert_array_equal(np.concatenate(list(blocks)), other)
    np.testing.assert_array_equal(decode_channels(encoded), [speech, other])
    m4a = muxed(speech, "ipod", "aac", "stereo")
    assert len(decode_channels(m4a)) == 2
    np.testing.assert_array_equal(decode_audio(m4a, channel=1), decode_channels(m4a)[1])


@pytest.mark.parametrize("channel", [2, -1])
def test_a_channel_that_is_not_there_is_refused(speech: np.ndarray, channel: int) -> None:
    with pytest.raises(AudioError, match=f"channel {channel} of audio given as .* it has 2"):
        decode_audio(stereo(speech, speech), channel=channel)
