"""Which rows of a source are labelled, what they are called, and which are neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, replace
from flax_distil.parallel.make_partitioner import join_local_devices
from flax_distil.pipeline.batch_transcription import BatchTranscriber
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.shard_reader import ShardBatch, ShardReader
from flax_distil.pseudo_labeling.splits import LabelSplit, open_splits
from flax_distil.storage.retries import DEFAULT_POLICY

SECONDS = {"one": 0.2, "two": 1.0, "three": 2.0, "four": 1.5, "five": 1.0}
SPEAKERS = {"one": "a", "two": "b", "three": None, "four": "a", "five": "b"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for name, seconds in SECONDS.items():
        soundfile.write(folder / f"{name}.wav", np.full(int(seconds * SAMPLING_RATE), 0.1), SAMPLING_RATE)
    rows = [{"audio": f"{name}.wav", "utterance": name, "who": SPEAKERS[name]} for name in SECONDS]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(manifest: Path, **settings) -> PseudoLabelConfig:
    return build(
        PseudoLabelConfig,
        model_name_or_path="m",
        output_dir="out",
        dataset_name=str(manifest),
        vad="energy",
        **settings,
    )


def opened(config: PseudoLabelConfig) -> LabelSplit:
    (part,) = open_splits(config)
    return part


def read(config: PseudoLabelConfig) -> list[ShardBatch]:
    reader = ShardReader(
        batch_size=8,
        detector=VoiceActivity("energy"),
        speakers=config.speakers,
        threads=1,
        policy=DEFAULT_POLICY,
        durations=config.durations,
    )
    return list(reader.batches(opened(config).plan.remaining({}, index=0, count=1)))


@pytest.mark.parametrize("streaming", [False, True])
def test_recordings_are_called_by_the_column_that_is_named(manifest, streaming):
    (batch,) = read(config_of(manifest, id_column_name="utterance", streaming=streaming))
    assert {recording.row.sample_id for recording in batch.recordings} == set(SECONDS)
    (batch,) = read(config_of(manifest, streaming=streaming))
    assert all(recording.row.sample_id.endswith(f":{recording.order}") for recording in batch.recordings)
    with pytest.raises(InputError, match="no column 'file'"):
        read(config_of(manifest, id_column_name="file", streaming=streaming))


def test_recordings_that_are_too_short_or_too_long_are_skipped_and_counted(manifest):
    config = config_of(
        manifest, id_column_name="utterance", min_duration_in_seconds=0.2, max_duration_in_seconds=1.5
    )
    (batch,) = read(config)
    assert {recording.row.sample_id for recording in batch.recordings} == {"two", "four", "five"}
    skipped = {sample.sample_id: sample.reason for sample in batch.in_progress.skipped.samples()}
    assert skipped == {
        "one": "it lasts 0.20 s, min_duration_in_seconds is 0.2",
        "three": "it lasts 2.00 s, max_duration_in_seconds is 1.5",
    }
    assert len(batch.in_progress.skipped.counts()) == 2
    with pytest.raises(InputError, match=r"min_duration_in_seconds 3 and max_duration_in_seconds 2 leave"):
        config_of(manifest, min_duration_in_seconds=3.0, max_duration_in_seconds=2.0)


def test_rows_of_a_speaker_are_put_together_before_they_are_joined(manifest):
    settings = {"id_column_name": "utterance", "speaker_column_name": "who", "concatenate_audio": True}
    part = opened(config_of(manifest, sort_by_speaker=True, **settings))
    assert part.source.ids() == ["one", "four", "two", "five", "three"]
    (batch,) = read(config_of(manifest, sort_by_speaker=True, **settings))
    assert sorted(round(recording.seconds, 1) for recording in batch.recordings) == [1.7, 2.0, 2.0]
    (batch,) = read(config_of(manifest, sort_by_speaker=True, max_duration_in_seconds=1.8, **settings))
    assert sorted(round(recording.seconds, 1) for recording in batch.recordings) == [1.0, 1.0, 1.7]
    (batch,) = read(config_of(manifest, sort_by_speaker=True, max_concatenated_seconds=1.8, **settings))
    assert sorted(round(recording.seconds, 1) for recording in batch.recordings) == [1.0, 1.0, 1.7, 2.0]
    assert opened(config_of(manifest, **settings)).source.ids() == list(SECONDS)
    with pytest.raises(InputError, match="has no column of speakers"):
        opened(config_of(manifest, sort_by_speaker=True))
    with pytest.raises(InputError, match="sorts tables, and streaming reads none"):
        config_of(manifest, sort_by_speaker=True, streaming=True)
    with pytest.raises(InputError, match="max_concatenated_seconds 31 is not above 0 and at most 30"):
        config_of(manifest, max_concatenated_seconds=31.0)


def test_labels_of_a_translation_are_compared_by_the_rules_for_english(manifest, base_dir):
    said, found = "He's paid twenty-one dollars.", "he is paid $21"
    for task, equal in (("transcribe", False), ("translate", True)):
        settings = {"model_name_or_path": str(base_dir), "language": "zh", "task": task}
        config = replace(config_of(manifest), **settings)
        teacher = BatchTranscriber(config, join_local_devices(config.devices))
        assert (teacher.normalize(said) == teacher.normalize(found)) == equal
