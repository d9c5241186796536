"""Decoding: a real recording, written in every container and codec, comes back as itself."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.reading.decoding import audio_duration, decode_audio, lasts_longer_than, open_audio
from flax_distil.audio.reading.errors import AudioError
from flax_distil.audio.reading.sources import raw_format
from flax_distil.core.errors import InputError
from tests.audio.encoders import PROMPTS, RATE, Case, delay, muxed, written

LIBSNDFILE: list[Case] = [
    ("WAV", "PCM_16", 8_000, 1),
    ("WAV", "PCM_16", 22_050, 1),
    ("WAV", "PCM_24", 44_100, 2),
    ("WAV", "FLOAT", 48_000, 6),
    ("WAV", "ULAW", 8_000, 1),
    ("FLAC", "PCM_16", 16_000, 1),
    ("FLAC", "PCM_16", 44_100, 2),
    ("MP3", None, 22_050, 1),
    ("MP3", None, 44_100, 2),
    ("OGG", "VORBIS", 44_100, 2),
    ("OGG", "OPUS", 48_000, 1),
]
# The bar per kind of codec: 8 kHz cuts half the band off, and lossy codecs do not keep phases.
EXPECTED_CORRELATION = {8_000: 0.95, "OPUS": 0.95, None: 0.99, "VORBIS": 0.99}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Some five seconds of a recorded prompt at 16 kHz."""
    return decode_audio(PROMPTS / "train" / "agent-incorrect.ogg")


def correlation(decoded: np.ndarray, original: np.ndarray) -> float:
    width = min(len(decoded), len(original))
    return float(np.corrcoef(decoded[:width], original[:width])[0, 1])


@pytest.mark.parametrize("case", LIBSNDFILE, ids=str)
def test_a_recording_comes_back_aligned_and_whole_from_every_format(speech: np.ndarray, case: Case) -> None:
    encoded = written(speech, case)
    decoded = decode_audio(encoded)
    assert decoded.dtype == np.float32
    assert abs(len(decoded) - len(speech)) <= 1
    assert delay(decoded, speech) == 0
    _, codec, rate, _ = case
    bar = EXPECTED_CORRELATION.get(rate, EXPECTED_CORRELATION.get(codec, 0.999))
    assert correlation(decoded, speech) > bar
    assert audio_duration(encoded) == pytest.approx(len(speech) / RATE, abs=1e-3)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_m4a_comes_back_aligned_with_its_tail(speech: np.ndarray, layout: str) -> None:
    encoded = muxed(speech, "ipod", "aac", layout)
    decoded = decode_audio(encoded)
    assert delay(decoded, speech) == 0
    assert correlation(decoded, speech) > 0.9
    # AAC comes in frames of 1024 samples; the last is padded, never cut.
    assert 0 <= len(decoded) - len(speech) < 1024
    assert audio_duration(encoded) == pytest.approx(len(speech) / RATE, abs=1024 / RATE)


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("adts", "aac"), ("g722", "g722")])
def test_what_ffmpeg_reads_comes_in_blocks_as_well(speech: np.ndarray, container: str, codec: str) -> None:
    encoded = muxed(np.tile(speech, 5), container, codec)
    format = raw_format(f"a.{container}")
    with open_audio(encoded, format=format) as blocks:
        parts = list(blocks)
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), decode_audio(encoded, format=format))
    seconds = audio_duration(encoded, format=format)
    assert lasts_longer_than(seconds - 0.1, encoded, format=format)
    assert not lasts_longer_than(seconds, encoded, format=format)


def test_an_aac_stream_without_a_container_is_measured_by_decoding_it(speech: np.ndarray) -> None:
    encoded = muxed(speech, "adts", "aac")
    assert audio_duration(encoded) == len(decode_audio(encoded)) / RATE
    assert abs(delay(decode_audio(encoded), speech)) <= 1024


def test_g722_is_known_by_the_name_of_the_file_or_of_the_format(speech: np.ndarray, tmp_path: Path) -> None:
    encoded = muxed(speech, "g722", "g722")
    path = tmp_path / "prompt.G722"
    path.write_bytes(encoded)
    decoded = decode_audio(path)
    # The codec splits the band with a filter bank of 22 samples' delay and codes pairs of samples.
    assert len(decoded) == 2 * len(encoded)
    assert abs(delay(decoded, speech)) <= 24
    assert correlation(decoded[delay(decoded, speech) :], speech) > 0.99
    np.testing.assert_array_equal(decode_audio(encoded, format="g722"), decoded)
    assert audio_duration(path) == audio_duration(encoded, format="g722") == len(decoded) / RATE


def test_raw_format_is_told_by_the_suffix() -> None:
    assert raw_format("digits/10.G722") == raw_format(Path("a.g722")) == "g722"
    assert raw_format("a.wav") is None


def test_a_string_a_path_and_bytes_give_the_same_samples() -> None:
    path = PROMPTS / "train" / "agent-incorrect.ogg"
    np.testing.assert_array_equal(decode_audio(str(path)), decode_audio(path))
    np.testing.assert_array_equal(decode_audio(path.read_bytes()), decode_audio(path))
    assert audio_duration(str(path)) == audio_duration(path.read_bytes())


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = np.full(1600, 0.5, np.float32), np.full(1600, -0.25, np.float32)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode_audio(path), np.full(1600, 0.125, np.float32))


def test_a_recording_longer_than_one_block_is_read_to_its_end(tmp_path: Path) -> None:
    ramp = np.linspace(-1, 1, 600_000, dtype=np.float32)
    path = tmp_path / "long.wav"
    soundfile.write(path, ramp, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode_audio(path), ramp)


def test_samples_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "hot.wav"
    soundfile.write(path, np.array([1.5, -2.0, 0.25], np.float32), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode_audio(path), np.array([1.0, -1.0, 0.25], np.float32))


def test_the_sound_of_a_video_is_taken(speech: np.ndarray) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        audio = output.add_stream("aac", rate=RATE, layout="mono")
        output.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(speech[None, :1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
    assert len(decode_audio(buffer.getvalue())) >= 1024


def silent_video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        output.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(video.encode(None))
    return buffer.getvalue()


def wav(samples: list[float]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array(samples, np.float32), RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"this is no audio" * 100, "it is text, not audio"),
        (b"\x00nor is this\xff" * 100, "FFmpeg says 'invalid data"),
        (wav([]), "no samples"),
        (wav([0.0, float("nan")]), "NaN or infinite"),
        (wav([0.0, float("inf")]), "NaN or infinite"),
        (wav([0.0, -32768.0]), "reach 32768 where full scale is 1"),
        (wav([0.0] * 100)[:20], "cannot read"),
        (silent_video(), "no audio stream"),
    ],
    ids=["empty", "text", "noise", "no samples", "nan", "infinite", "integers", "cut in the header", "video"],
)
def test_bad_audio_is_refused_with_its_name_and_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as from_path:
        decode_audio(path)
    assert str(path) in str(from_path.value)
    assert isinstance(from_path.value, InputError)
    with pytest.raises(AudioError, match=reason):
        decode_audio(content)


@pytest.mark.parametrize(
    "content", [b"", b"this is no audio" * 100, wav([])], ids=["empty", "text", "no samples"]
)
def test_what_cannot_be_decoded_has_no_duration(content: bytes) -> None:
    with pytest.raises(AudioError):
        audio_duration(content)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        decode_audio(tmp_path / "nothing.wav")
    with pytest.raises(AudioError, match="is a folder"):
        audio_duration(tmp_path)


def test_an_unknown_format_name_is_refused() -> None:
    with pytest.raises(AudioError, match="nonsense"):
        decode_audio(b"abc", format="nonsense")


@pytest.mark.parametrize("container", ["FLAC", "WAV"])
def test_a_cut_file_is_refused_or_gives_what_is_left(speech: np.ndarray, container: str) -> None:
    encoded = written(speech, (container, "PCM_16", RATE, 1))
    cut = encoded[: len(encoded) // 2]
    if container == "FLAC":
        with pytest.raises(AudioError, match="lost sync"):
            decode_audio(cut)
    else:
        left = decode_audio(cut)
        np.testing.assert_array_equal(left, decode_audio(encoded)[: len(left)])
        assert len(left) > 0.49 * len(speech)


@pytest.mark.parametrize("width", [0, 3, 8, 11])
def test_pad_or_trim_keeps_the_beginning(width: int) -> None:
    samples = np.arange(1, width + 1, dtype=np.float32)
    clip = pad_or_trim(samples, length=8)
    np.testing.assert_array_equal(clip, [*samples[:8], *[0] * (8 - width)])
    assert clip.dtype == np.float32


def test_pad_or_trim_makes_windows_of_thirty_seconds() -> None:
    assert pad_or_trim(np.ones(5, np.float32)).shape == (480_000,)
