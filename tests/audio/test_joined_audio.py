"""Files that were written one behind the other into one are all heard."""

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import audio_duration, decode_audio, open_audio
from tests.audio.encoders import PROMPTS, RATE, Case, muxed, written

CASES: list[Case] = [
    ("MP3", None, RATE, 1),
    ("FLAC", "PCM_16", RATE, 1),
    ("OGG", "VORBIS", RATE, 1),
    ("OGG", "OPUS", RATE, 1),
]
ID3 = b"ID3\x03\x00\x00\x00\x00\x10\x00" + b"\x00\xff\xfb\x90\x64" * 409 + b"\x00" * 3
"""A tag of 2058 bytes that looks like frames inside."""


def prompts() -> tuple[np.ndarray, np.ndarray]:
    first, second = sorted((PROMPTS / "train").glob("*.ogg"))[:2]
    return decode_audio(first), decode_audio(second)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_recordings_in_one_file_are_both_read(case: Case) -> None:
    first, second = (written(prompt, case) for prompt in prompts())
    expected = np.concatenate([decode_audio(part) for part in (first, second, first)])
    np.testing.assert_array_equal(decode_audio(first + second + first), expected)
    with open_audio(first + second + first) as blocks:
        np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)
    assert audio_duration(first + second + first) == pytest.approx(len(expected) / RATE, abs=1e-3)


@pytest.mark.parametrize("container", ["MP3", "FLAC"])
def test_tags_before_and_between_recordings_are_not_heard(container: str) -> None:
    case = (container, None if container == "MP3" else "PCM_16", RATE, 1)
    first, second = (written(prompt, case) for prompt in prompts())
    expected = np.concatenate([decode_audio(part) for part in (first, second)])
    tagged = ID3 + first + (ID3 if container == "MP3" else b"") + second
    np.testing.assert_array_equal(decode_audio(tagged), expected)


def test_the_length_of_an_mp3_is_read_from_its_header_where_it_tells() -> None:
    first, second = prompts()
    encoded = written(first, ("MP3", None, RATE, 1))
    assert audio_duration(ID3 + encoded) == pytest.approx(len(first) / RATE, abs=1e-3)
    bare = muxed(second, "mp2", "mp2")
    assert audio_duration(bare) == len(decode_audio(bare)) / RATE


def test_bare_mp3_frames_of_two_recordings_are_both_read() -> None:
    first, second = (muxed(prompt, "mp2", "mp2") for prompt in prompts())
    assert len(decode_audio(first + second)) == len(decode_audio(first)) + len(decode_audio(second))


def test_recordings_of_other_rates_in_one_file_are_brought_to_one() -> None:
    first, second = prompts()
    low = written(first, ("FLAC", "PCM_16", 8_000, 1))
    high = written(second, ("FLAC", "PCM_16", 44_100, 1))
    joined = decode_audio(low + high)
    assert abs(len(joined) - len(first) - len(second)) <= 4
    np.testing.assert_allclose(joined[: len(first) - 200], decode_audio(low)[: len(first) - 200], atol=1e-6)
