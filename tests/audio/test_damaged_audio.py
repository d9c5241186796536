"""Damaged recordings: `replace_damage` keeps times right and says what is lost; training refuses them."""

import logging
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import audio_duration, decode_audio
from flax_distil.audio.reading.errors import AudioError
from tests.audio.encoders import PROMPTS, RATE, damaged, delay, muxed, written

MINUTE = 60 * RATE
WRITERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "mp3": lambda speech: written(speech, ("MP3", None, RATE, 1)),
    "flac": lambda speech: written(speech, ("FLAC", "PCM_16", RATE, 1)),
    "m4a": lambda speech: muxed(speech, "ipod", "aac"),
    "aac": lambda speech: muxed(speech, "adts", "aac"),
    "vorbis": lambda speech: written(speech, ("OGG", "VORBIS", RATE, 1)),
    "matroska": lambda speech: muxed(speech, "matroska", "aac"),
}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A minute of different prompts at 16 kHz."""
    files = sorted((PROMPTS / "train").glob("*.ogg"))
    samples = np.concatenate([decode_audio(file) for file in files[:40]])
    return np.tile(samples, 3)[:MINUTE]


@pytest.mark.parametrize("kind", WRITERS)
def test_what_comes_after_damage_keeps_its_time_and_the_place_is_told(
    speech: np.ndarray, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = WRITERS[kind](speech)
    whole = decode_audio(encoded)
    with caplog.at_level(logging.WARNING):
        decoded = decode_audio(damaged(encoded), replace_damage=True)
    # Bytes tell the length of what a bare stream lost, to the share by which frames differ in size.
    exact = kind not in ("mp3", "aac")
    assert abs(len(decoded) - len(whole)) <= (0 if exact else RATE // 5)
    tail = slice(-10 * RATE, None)
    assert abs(delay(decoded[tail], whole[tail])) <= (0 if exact else RATE // 5)
    head = slice(0, 25 * RATE)
    np.testing.assert_allclose(decoded[head], whole[head], atol=1e-6)
    (record,) = caplog.records
    place = re.search(r"damaged at (\d+\.\d+) s \((\d+\.\d+) s\)", record.getMessage())
    assert place is not None
    assert 26 < float(place[1]) < 34
    assert 0 < float(place[2]) < 6  # as long as a cluster of Matroska lasts


@pytest.mark.parametrize("place", [0.3, 0.5, 0.62, 0.8])
def test_damaged_frames_of_flac_are_silence_and_not_noise(speech: np.ndarray, place: float) -> None:
    encoded = WRITERS["flac"](speech)
    decoded = decode_audio(damaged(encoded, place=place), replace_damage=True)
    wrong = decoded[decoded != decode_audio(encoded)]
    assert 0 < len(wrong) < RATE
    assert not wrong.any()


@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a", "aac", "vorbis"])
def test_a_damaged_recording_is_refused_for_training(speech: np.ndarray, kind: str) -> None:
    with pytest.raises(AudioError, match="cannot read audio"):
        decode_audio(damaged(WRITERS[kind](speech)))


@pytest.mark.parametrize("kind", ["aac", "flac"])
def test_a_recording_that_was_cut_short_gives_what_is_left_where_damage_is_replaced(
    speech: np.ndarray, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut = WRITERS[kind](speech)
    cut = cut[: len(cut) * 2 // 3]
    with caplog.at_level(logging.WARNING):
        left = decode_audio(cut, replace_damage=True)
    np.testing.assert_array_equal(left, decode_audio(WRITERS[kind](speech))[: len(left)])
    assert 0.6 * MINUTE < len(left) < 0.7 * MINUTE
    assert "its end" in caplog.text
    with pytest.raises(AudioError):
        decode_audio(cut)


def test_noise_is_no_recording_however_it_is_read() -> None:
    noise = np.random.default_rng(1).bytes(100_000)
    for begin in (b"", b"\xff\xfb\x90\x00", b"fLaC", b"OggS\x00\x02", b"\xff\xf1\x50\x80"):
        with pytest.raises(AudioError):
            decode_audio(begin + noise, replace_damage=True)


def test_a_damaged_mp3_writes_nothing_to_the_terminal(speech: np.ndarray, tmp_path: Path) -> None:
    mp3 = WRITERS["mp3"](speech[: 10 * RATE])
    path = tmp_path / "damaged.mp3"
    path.write_bytes(damaged(mp3) + mp3[:5000])
    code = f"""
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.reading.errors import AudioError
for replace in (False, True):
    try:
        decode_audio({str(path)!r}, replace_damage=replace)
    except AudioError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", "import logging; logging.disable()" + code],
        capture_output=True,
        check=True,
        env=os.environ,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


HEADERS: dict[str, tuple[str, int, int]] = {
    "nothing known": ("WAV", 0, 0),
    "only the header written": ("WAV", 36, 0),
    "written to a pipe": ("WAV", 0xFFFFFFFF, 0xFFFFFFFF),
    "written to a pipe, extensible": ("WAVEX", 0xFFFFFFFF, 0xFFFFFFFF),
    "extensible, nothing known": ("WAVEX", 0, 0),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("codec", ["PCM_16", "FLOAT"])
def test_a_wav_file_whose_header_tells_no_length_is_read_to_its_end(
    speech: np.ndarray, case: str, codec: str, tmp_path: Path
) -> None:
    container, riff, data = HEADERS[case]
    clip = speech[: 3 * RATE]
    encoded = bytearray(written(clip, (container, codec, RATE, 1)))
    place = encoded.index(b"data")
    encoded[4:8] = struct.pack("<I", riff)
    encoded[place + 4 : place + 8] = struct.pack("<I", data)
    path = tmp_path / "killed.wav"
    path.write_bytes(encoded)
    np.testing.assert_allclose(decode_audio(path), clip, atol=1e-4)
    np.testing.assert_array_equal(decode_audio(bytes(encoded)), decode_audio(path))
    assert audio_duration(path) == 3.0


@pytest.mark.parametrize("sizes", [b"\x00" * 24, b"\xff" * 24])
def test_an_rf64_file_whose_header_tells_no_length_is_read_to_its_end(
    speech: np.ndarray, sizes: bytes
) -> None:
    encoded = bytearray(written(speech[: 3 * RATE], ("RF64", "PCM_16", RATE, 1)))
    place = encoded.index(b"ds64") + 8
    encoded[place : place + 24] = sizes
    np.testing.assert_allclose(decode_audio(bytes(encoded)), speech[: 3 * RATE], atol=1e-4)


def test_a_wav_file_without_samples_has_none_whatever_stands_behind_them() -> None:
    encoded = written(np.zeros(0, np.float32), ("WAV", "PCM_16", RATE, 1))
    for rest in (b"", b"LIST\x04\x00\x00\x00INFO"):
        with pytest.raises(AudioError, match="holds no samples"):
            decode_audio(encoded + rest)
