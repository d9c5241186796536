"""Rows of long recordings become rows of pieces; short ones pass, bad ones are counted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.data.decoded_example import DurationLimits, decode_row
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.segmentation import cut_rows
from flax_distil.data.skipped import SkippedSamples

RATE = 16_000


@pytest.fixture(scope="module")
def detector() -> VoiceActivity:
    return VoiceActivity("energy")


@pytest.fixture(scope="module")
def long_file(corpus_rows, tmp_path_factory) -> Path:
    """Eleven prompts with a second of silence after each, twice over: more than a minute."""
    path = tmp_path_factory.mktemp("long") / "talk.flac"
    parts = [part for row in corpus_rows for part in (decode_audio(row["audio"]), np.zeros(RATE, np.float32))]
    soundfile.write(path, np.concatenate(parts * 2), RATE)
    return path


def row(path: str | Path | None, *, index: int = 0, seconds: float | None = None, **values) -> Example:
    name = f"row-{index}"
    return Example(
        index=index,
        sample_id=name,
        audio=None if path is None else {"bytes": None, "path": str(path)},
        reference="what was said",
        label="what was said",
        speaker=None,
        duration_seconds=seconds,
        values={"id": name, "text": "what was said", "channel": 3, **values},
    )


def test_a_long_row_becomes_rows_of_its_pieces(long_file, detector):
    whole = decode_audio(long_file)
    skipped = SkippedSamples()
    pieces = list(cut_rows([row(long_file)], detector=detector, skipped=skipped, text_columns=["text"]))
    assert len(pieces) >= 3
    assert not len(skipped)
    for piece in pieces:
        offset = piece.values["offset_seconds"]
        sample = decode_row(piece, DurationLimits())
        start = round(offset * RATE)
        np.testing.assert_array_equal(sample.samples_W, whole[start : start + len(sample.samples_W)])
        assert piece.sample_id == f"row-0@{offset:.2f}"
        assert piece.values == {
            "id": piece.sample_id,
            "text": None,
            "channel": 3,
            "source_id": "row-0",
            "offset_seconds": offset,
            "duration": sample.duration_seconds,
        }
        assert (piece.reference, piece.label, piece.speaker) == (None, None, "row-0")
        assert piece.duration_seconds == sample.duration_seconds <= 30
        assert piece.audio["path"] is None
    assert len({piece.sample_id for piece in pieces}) == len(pieces)
    assert sum(piece.duration_seconds for piece in pieces) > 0.6 * len(whole) / RATE


def test_bytes_and_a_file_give_the_same_pieces_again_and_again(long_file, detector):
    from_file = row(long_file)
    from_bytes = dataclasses.replace(from_file, audio={"bytes": long_file.read_bytes(), "path": "talk.flac"})
    first, second, third = (
        list(cut_rows([given], detector=detector, skipped=SkippedSamples()))
        for given in (from_file, from_file, from_bytes)
    )
    assert first == second == third


def test_a_speaker_is_kept(long_file, detector):
    spoken = dataclasses.replace(row(long_file), speaker="Allison")
    pieces = cut_rows([spoken], detector=detector, skipped=SkippedSamples())
    assert {piece.speaker for piece in pieces} == {"Allison"}


def test_short_rows_pass_unchanged_and_one_of_known_length_is_not_even_opened(corpus_rows, detector):
    skipped = SkippedSamples()
    rows = [row(corpus_rows[0]["audio"]), row("nowhere.wav", index=1, seconds=30.0)]
    passed = list(cut_rows(rows, detector=detector, skipped=skipped))
    assert all(one is other for one, other in zip(passed, rows, strict=True))
    assert not len(skipped)


def test_a_row_that_cannot_be_cut_is_counted_and_the_others_go_on(long_file, detector, tmp_path):
    damaged, silent = tmp_path / "damaged.flac", tmp_path / "silent.flac"
    content = long_file.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    soundfile.write(silent, np.zeros(40 * RATE), RATE)
    paths = [damaged, silent, None, tmp_path / "missing.flac", long_file]
    skipped = SkippedSamples()
    rows = [row(path, index=index) for index, path in enumerate(paths)]
    assert {piece.index for piece in cut_rows(rows, detector=detector, skipped=skipped)} == {4}
    assert [(sample.index, sample.kind) for sample in skipped.samples()] == [
        (0, "with unreadable audio"),
        (1, "without speech"),
        (2, "without audio"),
        (3, "whose audio file cannot be opened"),
    ]


def test_a_recording_whose_header_tells_no_length_is_measured(long_file, corpus_rows, detector, tmp_path):
    def untold(path: Path, seconds: int) -> Path:
        soundfile.write(path, np.resize(decode_audio(corpus_rows[0]["audio"]), seconds * RATE), RATE)
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0  # the number of samples in FLAC's STREAMINFO block
        content[22:26] = bytes(4)
        path.write_bytes(content)
        return path

    short, long = untold(tmp_path / "short.flac", 20), untold(tmp_path / "long.flac", 45)
    rows = [row(short), row(long, index=1)]
    found = list(cut_rows(rows, detector=detector, skipped=SkippedSamples()))
    assert found[0] is rows[0]
    assert {piece.index for piece in found[1:]} == {1}
    assert len(found) > 2
