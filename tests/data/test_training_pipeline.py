"""The training stream: every row in every epoch, the same batches after a resume, no bad row twice."""

import dataclasses
import json
import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits, SampleReader
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.preprocessing.packing import pack_rows
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData
from flax_distil.storage.retries import RetryPolicy, SourceError
from tests.data.flaky_http_server import Behavior, serving

CONFIG = PipelineConfig(batch_size=4, num_threads=2)
ROWS = 11
GOOD = sorted(set(range(ROWS)) - {3, 7})


@pytest.fixture
def opened(labels):
    """Makes pipelines and stops their threads at the end."""
    pipelines = []

    def make(data, config=CONFIG, *, builder=labels, seed=0, **options) -> TrainingPipeline:
        pipelines.append(
            TrainingPipeline(
                TrainingData(sources=[TableSource(data=data, labels=builder)]), config, seed=seed, **options
            )
        )
        return pipelines[-1]

    yield make
    for pipeline in pipelines:
        pipeline.close()


def rows_of(batches) -> list[int]:
    return [int(index) for batch in batches for index in batch.index_B[batch.valid_B]]


def assert_same_batches(batches, others) -> None:
    for batch, other in zip(batches, others, strict=True):
        for name, value in vars(batch).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
            if isinstance(value, np.ndarray):
                assert value.tobytes() == getattr(other, name).tobytes()


def test_every_row_comes_once_in_every_epoch_although_batches_cross_their_ends(speech, opened):
    rows = rows_of(islice(opened(speech), 11))  # 44 samples: four epochs of eleven
    epochs = [rows[start : start + ROWS] for start in range(0, 44, ROWS)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(ROWS))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in an order of its own


def test_batches_tell_the_epoch_of_their_first_sample(speech, opened):
    assert [batch.epoch for batch in islice(opened(speech), 6)] == [0, 0, 0, 1, 1, 1]


def test_the_order_follows_the_seed(speech, opened):
    first = rows_of(islice(opened(speech, seed=1), 5))
    assert rows_of(islice(opened(speech, seed=1), 5)) == first
    assert rows_of(islice(opened(speech, seed=2), 5)) != first
    assert rows_of(islice(opened(speech, shuffle=False), 3)) == [*range(ROWS), 0]


def test_neighboring_seeds_do_not_share_epochs(speech, opened):
    def epochs(seed: int) -> set[tuple[int, ...]]:
        rows = rows_of(islice(opened(speech, PipelineConfig(batch_size=ROWS), seed=seed), 3))
        return {tuple(rows[start : start + ROWS]) for start in range(0, 33, ROWS)}

    assert not epochs(0) & epochs(1)


def test_batches_hold_the_recordings_and_labels_of_their_rows(speech, labels, english_tokenizer, opened):
    reader, texts = SampleReader(speech), speech.labels()
    for batch in islice(opened(speech), 3):
        assert batch.samples_BW.shape == (4, 480_000)
        assert batch.samples_BW.dtype == np.int16
        assert batch.valid_B.all()
        for row, index in enumerate(batch.index_B):
            samples_W = reader.read(int(index)).samples_W
            decoded = batch.samples_BW[row, : len(samples_W)] / 32768  # exactly: they are of 16 bit
            np.testing.assert_array_equal(decoded, samples_W)
            assert not batch.samples_BW[row, len(samples_W) :].any()
            assert batch.duration_B[row] == pytest.approx(len(samples_W) / 16_000)
            assert batch.ids[row] == speech.ids()[index]
            learned = batch.labels_BT[row][batch.loss_mask_BT[row]]
            assert english_tokenizer.decode(learned).strip() == texts[index]
            assert learned[-1] == english_tokenizer.special.eot


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_a_resumed_stream_goes_on_byte_for_byte(flawed, english_tokenizer, opened, taken):
    timed = flawed.with_columns({"text": [f"<|0.00|> {text}<|1.00|>" for text in flawed.references()]})
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=0.5))
    uninterrupted = list(islice(opened(timed, builder=builder), 10))
    first = opened(timed, builder=builder)
    list(islice(first, taken))
    state = json.loads(json.dumps(first.get_state()))
    second = opened(timed, PipelineConfig(batch_size=4, num_threads=1, prefetch_batches=1), builder=builder)
    second.set_state(state)
    assert second.get_state() == state
    assert_same_batches(islice(second, 10 - taken), uninterrupted[taken:])


def test_a_resume_may_change_the_batch_size(speech, opened):
    rows = rows_of(islice(opened(speech), 6))
    first = opened(speech)
    list(islice(first, 2))
    second = opened(speech, PipelineConfig(batch_size=8))
    second.set_state(first.get_state())
    assert rows_of(islice(second, 2)) == rows[8:]


def test_a_stream_can_go_back_to_an_earlier_state(speech, opened):
    pipeline = opened(speech)
    next(pipeline)
    state = pipeline.get_state()
    later = list(islice(pipeline, 3))
    pipeline.set_state(state)
    assert_same_batches(islice(pipeline, 3), later)


def test_a_resume_decodes_only_what_is_still_to_come(speech, opened):
    first = opened(speech, shuffle=False)
    list(islice(first, 2))
    asked, lock = [], threading.Lock()

    def needs_audio(index: int) -> bool:
        with lock:
            asked.append(index)
        return True

    second = opened(speech, shuffle=False, needs_audio=needs_audio)
    second.set_state(first.get_state())
    next(second)
    # Rows 0 to 7 were used; the second epoch's come behind 8, 9 and 10.
    assert sorted(asked[:3]) == [8, 9, 10]
    assert Counter(asked)[7] <= 1


def test_resuming_on_other_data_or_another_seed_is_refused(speech, opened):
    state = opened(speech).get_state()
    with pytest.raises(InputError, match="samples was '11' and is '10'"):
        opened(speech.select(range(10))).set_state(state)
    with pytest.raises(InputError, match="fingerprint"):
        opened(speech.select([*range(1, ROWS), 0])).set_state(state)
    with pytest.raises(InputError, match="seed was 0 and is 5"):
        opened(speech, seed=5).set_state(state)


def test_the_rows_of_unreadable_recordings_are_empty_and_the_recordings_listed_once(flawed, speech, opened):
    pipeline = opened(flawed)
    batches = list(islice(pipeline, 11))  # 44 samples: four passes over nine good rows and two bad ones
    assert {batch.samples_BW.shape for batch in batches} == {(4, 480_000)}
    assert Counter(rows_of(batches)) == dict.fromkeys(GOOD, 4)
    for batch, sound in zip(batches, islice(opened(speech), 11), strict=True):
        bad = ~batch.valid_B
        assert [int(index) not in GOOD for index in sound.index_B] == bad.tolist()  # nothing else moves
        assert not batch.samples_BW[bad].any()
        assert not batch.loss_mask_BT[bad].any()
        assert not batch.duration_B[bad].any()
    assert pipeline.drawn.tolist() == [36]
    assert pipeline.skipped.counts() == {"with unreadable audio": 1, "with empty audio": 1}
    assert [skip.index for skip in pipeline.skipped.samples()] == [3, 7]
    report = pipeline.skipped.report()
    assert "skipped 2 samples: 1 with empty audio, 1 with unreadable audio" in report
    assert "07.flac" in report
    assert "it is empty" in report


def test_rows_without_audio_or_label_and_out_of_bounds_are_counted_by_reason(speech, tmp_path, opened):
    order = np.argsort(speech.durations())  # shortest first
    audio = [speech.table[int(index)]["audio"]["path"] for index in order]
    rows = [
        {"audio": audio[0], "text": "fine"},
        {"audio": None, "text": "nothing to hear"},
        {"audio": str(tmp_path / "gone.wav"), "text": "gone"},
        {"audio": audio[1], "text": None},
        {"audio": audio[2], "text": "word " * 500},
        {"audio": audio[-1], "text": "long"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_table(DatasetSpec(name=str(tmp_path / "rows.jsonl"), text_column="text"))
    seconds = SampleReader(data).read(5).duration_seconds
    pipeline = opened(
        data, limits=DurationLimits(max_seconds=seconds, allow_max=False)
    )  # exactly as long is too long
    assert set(rows_of(islice(pipeline, 2))) == {0}
    assert pipeline.skipped.counts() == {
        "without audio": 1,
        "whose audio file cannot be opened": 1,
        "without label": 1,
        "with too long a label": 1,
        "too long": 1,
    }


def test_a_data_set_without_a_usable_row_ends_the_run_with_a_reason(flawed, opened):
    with pytest.raises(InputError, match="none of the 2 samples of data set 'rows' can be used: cannot read"):
        next(opened(flawed.select([3, 7])))


def test_audio_that_is_not_needed_is_not_decoded(flawed, opened):
    pipeline = opened(
        flawed.with_columns({"duration": [1.0] * ROWS}), needs_audio=lambda index: False, shuffle=False
    )
    batches = list(islice(pipeline, 3))
    assert all(batch.samples_BW is None for batch in batches)
    assert rows_of(batches) == [*range(ROWS), 0]  # broken ones too: nobody opened them
    assert all((batch.duration_B == 1.0).all() for batch in batches)


def test_audio_of_unknown_duration_is_decoded_once_and_then_remembered(flawed, opened):
    config = PipelineConfig(batch_size=ROWS, num_threads=2)
    pipeline = opened(flawed, config, needs_audio=lambda index: False)
    first, later = next(pipeline), [next(pipeline) for _ in range(3)][-1]
    assert (first.has_audio_B == first.valid_B).all()
    assert not later.has_audio_B.any()
    durations = dict(zip(first.index_B.tolist(), first.duration_B.tolist(), strict=True))
    assert durations == dict(zip(later.index_B.tolist(), later.duration_B.tolist(), strict=True))


def test_what_the_same_speaker_said_before_becomes_a_prompt(speech, english_tokenizer, opened):
    data = speech.with_columns({"speaker_id": [*"aabbb", None, None, *"cccc"]})
    data = dataclasses.replace(data, speaker_column="speaker_id")
    builder = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=1.0))
    pipeline = opened(data, PipelineConfig(batch_size=ROWS), builder=builder, shuffle=False)
    inputs_BT = next(pipeline).decoder_input_ids_BT
    special = english_tokenizer.special
    prompted = inputs_BT[:, 0] == special.sot_prev
    assert prompted.tolist() == [False, True, False, True, True, False, False, False, True, True, True]
    for row in np.flatnonzero(prompted):
        given = inputs_BT[row][1 : inputs_BT[row].tolist().index(special.sot)]
        assert english_tokenizer.decode(given).strip() == speech.labels()[row - 1]


def test_settings_that_cannot_work_are_refused(speech, opened):
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        PipelineConfig(batch_size=0)
    with pytest.raises(InputError, match="longest label bucket"):
        opened(speech, PipelineConfig(batch_size=2, label_buckets=(32, 64)))


def test_recorded_noise_is_mixed_in_and_noise_that_cannot_be_read_is_listed(speech, flawed, labels):
    def batch(noise):
        config = AugmentationConfig(recorded_noise_prob=1.0, noise_snr=(10.0, 10.0)) if noise else None
        pipeline = TrainingPipeline(
            TrainingData(sources=[TableSource(data=speech, labels=labels)], noise=noise),
            PipelineConfig(batch_size=ROWS, num_threads=0),
            seed=0,
            augmentation=config,
        )
        try:
            return next(pipeline), pipeline.skipped
        finally:
            pipeline.close()

    clean, _ = batch(None)
    noisy, skipped = batch(flawed.select([3, 0]))
    assert clean.ids == noisy.ids
    changed = (clean.samples_BW != noisy.samples_BW).any(axis=1)
    assert 0 < changed.sum() < ROWS  # those that drew the broken recording stay clean
    assert [sample.data_set for sample in skipped.samples()] == [flawed.name]


@pytest.mark.parametrize("joined", [False, True])
def test_recordings_at_addresses_are_asked_for_as_long_as_the_policy_says(
    corpus_rows, labels, tmp_path, joined
):
    with serving(tmp_path, Behavior(failing=1.0, faults=("500",))) as address:
        rows = [
            {"audio": f"{address}/{number}.flac", "text": row["text"], "duration": 1.0}
            for number, row in enumerate(corpus_rows)
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = load_table(DatasetSpec(name=str(path), text_column="text"))
        source = TableSource(
            data=data, labels=labels, packs=pack_rows(data, labels=labels) if joined else None
        )
        config = PipelineConfig(batch_size=2, num_threads=1, policy=RetryPolicy(total_seconds=0.0))
        pipeline = TrainingPipeline(TrainingData(sources=[source]), config, seed=0)
        try:
            with pytest.raises(SourceError, match="500"):
                next(pipeline)
        finally:
            pipeline.close()


def test_the_largest_bucket_is_that_of_the_longest_label_whatever_comes_first(
    speech, train, opened, english_tokenizer
):
    """Counted where a table is small; where texts before are prompts, that of all the decoder's positions."""
    unprompted = LabelConfig(condition_on_prev_probability=0.0)
    texts = [*speech.labels()[:10], "word " * 50]
    data = dataclasses.replace(speech.with_columns({"text": texts}))
    builder = LabelBuilder(english_tokenizer, unprompted)
    assert opened(data, builder=builder).largest_bucket() == 64
    assert opened(train).largest_bucket() == 448


def test_batches_of_a_shorter_window_are_as_wide_as_it(speech, opened):
    """Recordings that do not fit are skipped."""
    config = dataclasses.replace(CONFIG, batch_size=1, window_seconds=2.0)
    pipeline = opened(speech, config)
    batches = list(islice(pipeline, 4))
    assert {batch.samples_BW.shape for batch in batches} == {(1, 32_000)}
    assert all(batch.duration_B[0] <= 2.0 for batch in batches)
