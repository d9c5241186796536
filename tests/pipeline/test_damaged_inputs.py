"""Transcription goes on behind damage; training and labelling leave a damaged recording out."""

import logging

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.reading.errors import UNREADABLE
from flax_distil.data.decoded_example import DurationLimits, SampleError, decode_row
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_tables
from flax_distil.pipeline.inputs.load_ahead import read_recording
from tests.audio.encoders import RATE, damaged, written


@pytest.fixture
def broken(prompts_dir, tmp_path):
    """A folder with a FLAC file that is damaged in its middle, and what was recorded."""
    speech = np.tile(decode_audio(sorted((prompts_dir / "train").glob("*.ogg"))[0]), 20)[: 20 * RATE]
    folder = tmp_path / "recordings"
    folder.mkdir()
    encoded = written(speech, ("FLAC", "PCM_16", RATE, 1))
    (folder / "broken.flac").write_bytes(damaged(encoded))
    return folder, decode_audio(encoded)


def test_a_damaged_recording_is_transcribed_with_silence_for_what_is_lost(broken, caplog):
    folder, whole = broken
    with caplog.at_level(logging.WARNING):
        read = read_recording("broken", folder / "broken.flac")
    assert read.error is None
    assert len(read.samples) == len(whole)
    wrong = np.flatnonzero(read.samples != whole)
    assert 0 < len(wrong) < RATE
    assert not read.samples[wrong].any()
    assert "broken.flac' is damaged at" in caplog.text


def test_a_damaged_recording_costs_its_row_in_training(broken):
    (data,) = load_tables(DatasetSpec(name=str(broken[0])))
    with pytest.raises(SampleError, match=r"broken\.flac") as error:
        decode_row(data.row(0), DurationLimits())
    assert error.value.kind == UNREADABLE
