"""One channel of a data set's recordings, however its rows are read."""

import json

import numpy as np
import pytest
import soundfile

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.reading.errors import NO_CHANNEL
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.data.decoded_example import DurationLimits, SampleError, decode_row
from flax_distil.data.preprocessing.segmentation import cut_rows
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_tables

RATE = 16_000
LIMITS = DurationLimits()


@pytest.fixture(scope="module")
def speakers(prompts_dir):
    """Two speakers, two seconds each."""
    files = sorted((prompts_dir / "train").glob("*.ogg"))
    found = (decode_audio(file) for file in files)
    return [samples[: 2 * RATE] for samples in found if len(samples) >= 2 * RATE][:2]


@pytest.fixture
def manifest(tmp_path, speakers):
    both = np.stack(speakers, axis=1)
    soundfile.write(tmp_path / "both.wav", both, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", np.tile(both, (20, 1)), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "one.wav", speakers[0], RATE, subtype="FLOAT")
    rows = [
        {"file_name": "both.wav"}, {"file_name": "both.wav", "offset": 0.5, "duration": 1.0},
        {"file_name": "one.wav"}, {"file_name": "long.wav"},
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"offset": None, "duration": None} | row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("channel", [0, 1])
def test_the_channel_that_is_asked_for_is_taken(manifest, speakers, channel):
    (table,) = load_tables(DatasetSpec(name=manifest, channel=channel))
    (stream,) = load_streams(DatasetSpec(name=manifest, channel=channel))
    for data in (table, stream.first_rows()):
        whole, part = (decode_row(data.row(index), LIMITS).samples_W for index in range(2))
        np.testing.assert_array_equal(whole, speakers[channel])
        np.testing.assert_array_equal(part, speakers[channel][RATE // 2 : 3 * RATE // 2])


def test_without_a_channel_the_mean_is_taken(manifest, speakers):
    (data,) = load_tables(DatasetSpec(name=manifest))
    np.testing.assert_allclose(
        decode_row(data.row(0), LIMITS).samples_W, np.mean(speakers, axis=0), atol=1e-7
    )


def test_a_recording_without_the_channel_costs_its_row(manifest):
    (data,) = load_tables(DatasetSpec(name=manifest, channel=1))
    with pytest.raises(SampleError, match=r"channel 1 of audio file .*one\.wav': it has 1") as error:
        decode_row(data.row(2), LIMITS)
    assert error.value.kind == NO_CHANNEL


def test_pieces_of_a_long_recording_are_of_that_channel(manifest, speakers):
    (data,) = load_tables(DatasetSpec(name=manifest, channel=1))
    pieces = list(cut_rows([data.row(3)], detector=VoiceActivity("energy"), skipped=SkippedSamples()))
    assert len(pieces) > 1
    heard = np.tile(speakers[1], 20)
    for piece in pieces:
        start = round(piece.values["offset_seconds"] * RATE)
        samples = decode_row(piece, LIMITS).samples_W
        np.testing.assert_allclose(samples, heard[start : start + len(samples)], atol=1e-4)


def test_the_channel_is_part_of_what_identifies_the_data(manifest):
    prints = {
        load_tables(DatasetSpec(name=manifest, channel=channel))[0].fingerprint() for channel in (None, 0, 1)
    }
    assert len(prints) == 3
