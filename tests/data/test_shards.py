"""Processes that share a data set read all of it, nothing twice, in batches of equal shapes."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData

ROWS = 11
GOOD = sorted(set(range(ROWS)) - {3, 7})
COUNTS = pytest.mark.parametrize("shards", [1, 2, 3, 5])


def configs(shards: int, batch_size: int = 2) -> list[PipelineConfig]:
    return [
        PipelineConfig(batch_size=batch_size, num_threads=2, shard_index=shard, shard_count=shards)
        for shard in range(shards)
    ]


@pytest.fixture
def opened(labels):
    """Makes the training pipelines of all shards and stops their threads at the end."""
    pipelines = []

    def make(data, shards, *, batch_size=2, builder=labels, seed=0, **options) -> list[TrainingPipeline]:
        made = [
            TrainingPipeline(
                TrainingData(sources=[TableSource(data=data, labels=builder)]), config, seed=seed, **options
            )
            for config in configs(shards, batch_size)
        ]
        pipelines.extend(made)
        return made

    yield make
    for pipeline in pipelines:
        pipeline.close()


def rows_of(batches) -> list[int]:
    return [int(index) for batch in batches for index in batch.index_B[batch.valid_B]]


def shapes_of(batch) -> dict[str, tuple]:
    return {name: (v.shape, v.dtype) for name, v in vars(batch).items() if isinstance(v, np.ndarray)}


def without_audio(index: int) -> bool:
    return False


@COUNTS
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_global_batch_holds_the_rows_that_one_process_would_read(speech, opened, shards, shuffle):
    options = {"shuffle": shuffle, "needs_audio": without_audio, "seed": 3}
    (alone,) = opened(speech, 1, batch_size=2 * shards, **options)
    parts = opened(speech, shards, **options)
    for _ in range(15):  # 30 to 150 samples: epochs end within batches and between shards
        assert Counter(rows_of(next(part) for part in parts)) == Counter(rows_of([next(alone)]))


@COUNTS
def test_shards_draw_every_row_once_in_every_epoch(speech, opened, shards):
    parts = opened(speech, shards, batch_size=1, needs_audio=without_audio)
    drawn = [rows_of(islice(part, ROWS)) for part in parts]
    stream = [drawn[place % shards][place // shards] for place in range(ROWS * shards)]
    for start in range(0, len(stream), ROWS):
        assert sorted(stream[start : start + ROWS]) == list(range(ROWS))


@pytest.mark.parametrize("shards", [2, 3])
def test_the_label_of_a_row_does_not_depend_on_the_number_of_shards(
    speech, english_tokenizer, opened, shards
):
    timed = speech.with_columns({"text": [f"<|0.00|> {text}<|1.00|>" for text in speech.references()]})
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=0.5))

    def learned(pipelines, batches: int) -> Counter:
        """Count each row with what it teaches; the latter changes from epoch to epoch."""
        return Counter(
            (int(row), *batch.labels_BT[place][batch.loss_mask_BT[place]].tolist())
            for pipeline in pipelines
            for batch in islice(pipeline, batches)
            for place, row in enumerate(batch.index_B)
        )

    options = {"builder": builder, "needs_audio": without_audio}
    alone = learned(opened(timed, 1, batch_size=shards, **options), 4 * ROWS)
    assert learned(opened(timed, shards, batch_size=1, **options), 4 * ROWS) == alone
    assert len(alone) > ROWS  # some with timestamps in one epoch and without in another


def test_the_epoch_is_that_of_the_whole_stream(speech, opened):
    parts = opened(speech, 3, batch_size=1, needs_audio=without_audio)
    epochs = [[batch.epoch for batch in islice(part, 8)] for part in parts]
    assert epochs == [[(3 * step + shard) // ROWS for step in range(8)] for shard in range(3)]


@pytest.mark.parametrize("shards", [2, 3])
def test_an_unusable_row_moves_no_other(flawed, opened, shards):
    for shard, part in enumerate(opened(flawed, shards, batch_size=1, shuffle=False)):
        rows = [(shards * step + shard) % ROWS for step in range(8)]
        found = [rows_of([batch]) for batch in islice(part, 8)]
        assert found == [[row] if row in GOOD else [] for row in rows]


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_every_shard_resumes_where_it_was(flawed, opened, taken):
    uninterrupted = [list(islice(part, 6)) for part in opened(flawed, 2)]
    states = []
    for part in opened(flawed, 2):
        list(islice(part, taken))
        states.append(json.loads(json.dumps(part.get_state())))
    for part, state, wanted in zip(opened(flawed, 2), states, uninterrupted, strict=True):
        part.set_state(state)
        for found, batch in zip(islice(part, 6 - taken), wanted[taken:], strict=True):
            for name, value in vars(batch).items():
                np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


def test_unusable_rows_are_empty_in_one_shard_and_end_a_run_that_has_no_others(flawed, opened):
    data = flawed.select([0, 1, 3, 7])  # unshuffled, shard 1 of 2 meets the broken ones alone
    first, second = opened(data, 2, shuffle=False)
    assert rows_of([next(first)]) == [0, 1]
    assert not next(second).valid_B.any()
    (alone,) = opened(flawed.select([3, 7]), 1)
    with pytest.raises(InputError, match="none of the 2 samples of data set 'rows' can be used"):
        next(alone)


def test_shards_train_on_labels_of_one_length(speech, english_tokenizer, opened):
    texts = ["word " * 40, *["word"] * 9, "word " * 80]
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=64))
    data = speech.with_columns({"text": texts, "speaker_id": ["a"] * 11})
    options = {"batch_size": 1, "builder": builder, "needs_audio": without_audio}
    for part in opened(data, 3, **options):  # the longest label is one of 42 tokens: 83 are too many
        assert {batch.labels_BT.shape for batch in islice(part, 12)} == {(1, 64)}
    (alone,) = opened(data, 1, **options)
    assert {batch.labels_BT.shape for batch in islice(alone, 12)} == {(1, 32), (1, 64)}
    told = dataclasses.replace(data, speaker_column="speaker_id")
    for part in opened(told, 2, **options):  # a prompt may fill the rest
        assert next(part).labels_BT.shape == (1, 448)


@COUNTS
@pytest.mark.parametrize("rows", [1, 4, 10, 11])
def test_shards_evaluate_every_row_once_in_equally_many_batches(speech, shards, rows):
    parts = [
        EvaluationPipeline(speech, config, indices=range(rows), needs_audio=without_audio)
        for config in configs(shards)
    ]
    batches = [list(part) for part in parts]
    number = math.ceil(math.ceil(rows / shards) / 2)
    assert {len(part) for part in parts} == {len(found) for found in batches} == {number}
    assert [rows_of(found) for found in batches] == [list(range(s, rows, shards)) for s in range(shards)]
    texts = speech.references()
    for batch in itertools.chain(*batches):
        assert batch.references == [texts[row] if row >= 0 else "" for row in batch.index_B]


def test_batches_of_all_shards_have_equal_shapes_whatever_is_left_to_read(flawed, english_tokenizer):
    texts = [*["word " * 40] * 2, *["word"] * 7, "word " * 80, None]
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=64))
    data = flawed.with_columns({"text": texts})
    parts = [
        EvaluationPipeline(data, config, labels=builder, indices=[3, 0, 7, 1, 3, 2, 7, 10])
        for config in configs(2)  # shard 0 meets nothing but the broken recordings
    ]
    batches = [list(part) for part in parts]
    assert [rows_of(found) for found in batches] == [[], [0, 1, 2, 10]]
    assert [len(found) for found in batches] == [2, 2]
    (shapes,) = {tuple(shapes_of(batch).items()) for found in batches for batch in found}
    assert dict(shapes)["labels_BT"] == ((2, 64), np.int32)
    assert dict(shapes)["samples_BW"] == ((2, 480_000), np.float32)
    assert not any(batch.loss_mask_BT.any() or batch.samples_BW.any() for batch in batches[0])
    assert [len(part.skipped) for part in parts] == [2, 0]


def test_nothing_to_evaluate_is_no_batch_in_any_shard(speech):
    assert [list(EvaluationPipeline(speech, config, indices=[])) for config in configs(3)] == [[]] * 3


def test_a_recording_that_is_too_long_ends_the_run_in_every_shard(speech):
    told = speech.with_columns({"duration": [31.0, *[1.0] * 10]})
    for config in configs(2):
        with pytest.raises(InputError, match=r"31\.00 s of audio; at most 30 s"):
            EvaluationPipeline(told, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard_count": 0}, "shard_count must be at least 1, got 0"),
        ({"shard_index": 1}, "shard_index must lie between 0 and 0, got 1"),
        ({"shard_index": -1, "shard_count": 2}, "shard_index must lie between 0 and 1, got -1"),
    ],
)
def test_a_shard_that_does_not_exist_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PipelineConfig(batch_size=1, **settings)
