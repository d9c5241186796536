"""Rows that are parts of longer files: only that part is decoded and used, wherever a row is read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import SampleError, SampleReader
from flax_distil.data.fragments import Fragment, parse_fragment, split_fragment
from flax_distil.data.preprocessing.packing import pack_rows
from flax_distil.data.preprocessing.segmentation import cut_rows
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.sources.concatenate import concatenate_sources
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData
from tests.data.stream_checks import all_rows

TIMES = [(0.0, 1.5), (2.25, 2.0), (4.5, 1.0)]


@pytest.fixture(scope="module")
def talk(corpus_rows, tmp_path_factory) -> Path:
    """Some prompts behind each other in one FLAC file."""
    path = tmp_path_factory.mktemp("talk") / "talk.flac"
    soundfile.write(path, np.concatenate([decode_audio(row["audio"]) for row in corpus_rows]), SAMPLING_RATE)
    return path


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def manifest(talk) -> Path:
    """As NeMo writes it."""
    rows = [
        {"audio_filepath": talk.name, "offset": offset, "duration": duration, "text": f"Part {number}."}
        for number, (offset, duration) in enumerate(TIMES)
    ]
    return write(talk.parent / "nemo.jsonl", rows)


def check_parts(data: SpeechDataset, talk: Path) -> None:
    whole, reader = decode_audio(talk), SampleReader(data)
    assert data.durations() == [duration for _, duration in TIMES]
    for row, (offset, duration) in enumerate(TIMES):
        sample = reader.read(row)
        start = round(offset * SAMPLING_RATE)
        np.testing.assert_array_equal(
            sample.samples_W, whole[start : start + round(duration * SAMPLING_RATE)]
        )
        assert sample.duration_seconds == duration


def test_a_manifest_of_nemo_gives_the_parts_of_its_files(manifest, talk):
    check_parts(load_table(DatasetSpec(name=str(manifest), text_column="text")), talk)
    (stream,) = load_streams(DatasetSpec(name=str(manifest), text_column="text"))
    assert [row.duration_seconds for row in all_rows(stream)] == [duration for _, duration in TIMES]


@pytest.mark.parametrize("start", ["start_time", "begin_time"])
def test_beginnings_and_ends_in_a_csv_file_do_as_well(start, talk):
    path = talk.parent / f"{start}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", start, "end_time", "text"])
        writer.writerows([talk, offset, offset + duration, "words"] for offset, duration in TIMES)
    check_parts(load_table(DatasetSpec(name=str(path), text_column="text")), talk)


def test_a_part_without_an_end_lasts_to_the_end_of_its_file(talk):
    path = write(talk.parent / "open.jsonl", [{"audio": talk.name, "offset": 3.0, "text": "rest"}])
    data = load_table(DatasetSpec(name=str(path), text_column="text"))
    assert data.durations() == [None]
    np.testing.assert_array_equal(SampleReader(data).read(0).samples_W, decode_audio(talk)[48_000:])


@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_part_is_what_lies_there_in_the_decoded_file(suffix, rate, talk, tmp_path):
    """Formats that can be entered anywhere, and those that are walked through, at any rate."""
    samples, path = np.resize(decode_audio(talk), 6 * rate), tmp_path / f"talk.{suffix}"
    if suffix == "m4a":
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
            frame.sample_rate = rate
            container.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        soundfile.write(path, samples, rate)
    rows = [{"audio": path.name, "offset": 2.5, "duration": 1.25, "text": "a part"}]
    found = (
        SampleReader(load_table(DatasetSpec(name=str(write(tmp_path / "rows.jsonl", rows)))))
        .read(0)
        .samples_W
    )
    whole = decode_audio(path)[40_000:60_000]
    assert found.shape == whole.shape
    # At the ends of a part a resampler has not heard what lies before and behind it.
    np.testing.assert_allclose(found[400:-400], whole[400:-400], atol=2e-3)


def test_every_pipeline_uses_the_part_alone(manifest, talk, labels):
    data = load_table(DatasetSpec(name=str(manifest), text_column="text"))
    config = PipelineConfig(batch_size=3, num_threads=0)
    (batch,) = EvaluationPipeline(data, config)
    assert batch.duration_B.tolist() == [duration for _, duration in TIMES]
    packs = pack_rows(data)
    assert (len(packs), packs.report.seconds) == (1, 4.5)
    for pipeline in (
        TrainingPipeline(
            TrainingData(sources=[TableSource(data=data, labels=labels)]), config, seed=0, shuffle=False
        ),
        TrainingPipeline(
            TrainingData(sources=[TableSource(data=data, labels=labels, packs=packs)]), config, seed=0
        ),
    ):
        batch = next(pipeline)
        pipeline.close()
        whole = decode_audio(talk)
        first = batch.samples_BW[0, : round(TIMES[0][1] * SAMPLING_RATE)] / 32768
        np.testing.assert_array_equal(first, whole[: len(first)])


def test_a_part_of_more_than_30_s_is_cut_within_itself(corpus_rows, tmp_path):
    speech = np.concatenate([decode_audio(row["audio"]) for row in corpus_rows])
    soundfile.write(tmp_path / "long.wav", np.resize(speech, 90 * SAMPLING_RATE), SAMPLING_RATE)
    rows = [{"audio": "long.wav", "offset": 20.0, "duration": 40.0, "text": "long"}]
    data = load_table(DatasetSpec(name=str(write(tmp_path / "rows.jsonl", rows)), text_column="text"))
    skipped = SkippedSamples()
    pieces = list(cut_rows(data.rows(), detector=VoiceActivity("energy"), skipped=skipped))
    assert not len(skipped)
    assert 30.0 < sum(piece.duration_seconds for piece in pieces) <= 40.0
    whole = decode_audio(tmp_path / "long.wav")
    for piece in pieces:
        start = round((20.0 + piece.values["offset_seconds"]) * SAMPLING_RATE)
        found = decode_audio(piece.audio["bytes"])
        np.testing.assert_array_equal(found, whole[start : start + len(found)])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"offset": "abc"}, "column 'offset' holds 'abc', which is not a time in seconds"),
        ({"offset": -1.0}, "column 'offset' holds '-1.0', which is not a time in seconds"),
        ({"offset": 0.0, "duration": [1.0]}, r"column 'duration' holds '\[1.0\]'"),
        ({"offset": 2.0, "end_time": 1.0}, "ends at 1 s, not behind its beginning at 2 s"),
        ({"offset": 4000.0, "duration": 1.0}, "it lasts [0-9.]+ s; correct the times"),
        ({"offset": 10.0, "duration": 29.0}, "it lasts [0-9.]+ s; correct the times"),
    ],
)
def test_impossible_times_cost_their_row_only(values, reason, talk):
    rows = [
        {"audio": talk.name, "text": "bad", **values},
        {"audio": talk.name, "text": "a", "offset": 9.0, "duration": 2.0},
    ]
    data = load_table(DatasetSpec(name=str(write(talk.parent / "bad.jsonl", rows)), text_column="text"))
    with pytest.raises(SampleError, match=reason):
        SampleReader(data).read(0)
    assert SampleReader(data).read(1).duration_seconds > 1.0


def test_ends_without_beginnings_are_told(talk):
    path = write(talk.parent / "ends.jsonl", [{"audio": talk.name, "end_time": 2.0, "text": "x"}])
    with pytest.raises(InputError, match="has a column 'end_time' and none of offset, start_time"):
        load_table(DatasetSpec(name=str(path), text_column="text"))


def test_parts_stay_parts_where_data_sets_are_joined(manifest, talk, speech):
    joined = concatenate_sources(
        [speech.select([0]), load_table(DatasetSpec(name=str(manifest), text_column="text"))]
    )
    assert [SampleReader(joined).read(row).duration_seconds for row in (1, 2, 3)] == [1.5, 2.0, 1.0]


def test_the_digest_of_a_data_set_tells_its_parts(talk):
    def digest(offset: float) -> str:
        rows = [{"id": "a", "audio": talk.name, "offset": offset, "duration": 1.0, "text": "x"}]
        return load_table(
            DatasetSpec(name=str(write(talk.parent / "digest.jsonl", rows)), text_column="text")
        ).fingerprint()

    assert digest(1.0) == digest(1.0) != digest(2.0)


def test_a_fragment_is_written_as_it_is_read():
    assert parse_fragment(f"a.wav{Fragment(start=0.1, end=1.25)}") == (
        "a.wav",
        Fragment(start=0.1, end=1.25),
    )
    assert parse_fragment("https://host/a b.wav#t=3.0") == ("https://host/a b.wav", Fragment(start=3.0))
    assert split_fragment("odd#name.wav") == ("odd#name.wav", "")
    with pytest.raises(ValueError, match="names no part of a recording"):
        parse_fragment("a.wav#t=3.0,3.0")
