"""The demo corpus is what its metadata says, and its splits share nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from whisper_normalizer.english import EnglishTextNormalizer

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.audio.reading.decoding import audio_duration, decode_audio

CORPUS = Path(__file__).parents[2] / "examples" / "asterisk_prompts"
SPLITS = ("train", "validation")
MEGABYTE = 1_000_000


def rows(split: str) -> list[dict]:
    lines = (CORPUS / split / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("split", SPLITS)
def test_every_row_has_its_file_and_every_file_its_row(split: str) -> None:
    names = [row["file_name"] for row in rows(split)]
    assert sorted(names) == sorted(path.name for path in (CORPUS / split).glob("*.ogg"))


@pytest.mark.parametrize("split", SPLITS)
def test_stated_durations_are_those_of_the_recordings(split: str) -> None:
    for row in rows(split):
        seconds = audio_duration(CORPUS / split / row["file_name"])
        assert seconds == pytest.approx(row["duration"], abs=1e-3), row
        assert 0.3 < seconds <= CHUNK_SECONDS, row


def test_held_out_recordings_decode_to_speech_as_long_as_stated() -> None:
    for row in rows("validation"):
        samples = decode_audio(CORPUS / "validation" / row["file_name"])
        assert len(samples) == pytest.approx(row["duration"] * SAMPLING_RATE, abs=16), row
        # Prompts are mixed to one level; tones and silence would fall out of this range.
        assert 0.01 < np.sqrt(np.mean(np.square(samples))) < 0.5, row


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_spoken_words_only(split: str) -> None:
    for row in rows(split):
        assert set(row) == {"file_name", "text", "duration"}
        assert EnglishTextNormalizer()(row["text"]), row
        assert not set(row["text"]) & set("[]<>()*#"), row
        assert "..." not in row["text"], row


def test_no_sentence_is_in_both_splits() -> None:
    normalize = EnglishTextNormalizer()
    train, validation = ({normalize(row["text"]) for row in rows(split)} for split in SPLITS)
    assert not train & validation


def test_the_held_out_split_is_some_minutes_of_sentences() -> None:
    held_out = rows("validation")
    assert 80 <= len(held_out) <= 100
    assert 180 <= sum(row["duration"] for row in held_out) <= 300
    assert min(len(row["text"].split()) for row in held_out) >= 3


def test_the_folder_is_small_and_carries_its_license() -> None:
    size = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    assert size <= 6 * MEGABYTE
    assert "Allison Smith" in (CORPUS / "ATTRIBUTION").read_text()
    assert "SHARE" in (CORPUS / "LICENSE").read_text().upper()
