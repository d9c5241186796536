"""Evaluation reads every row exactly once, whatever its length, label or batch."""

from pathlib import Path

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig

CONFIG = PipelineConfig(batch_size=4, num_threads=2)


def test_every_row_is_read_once_in_order_with_its_whole_reference(speech):
    pipeline = EvaluationPipeline(speech, CONFIG)
    batches = list(pipeline)
    assert len(batches) == len(pipeline) == 3
    assert {batch.samples_BW.shape for batch in batches} == {(4, 480_000)}
    valid = np.concatenate([batch.valid_B for batch in batches])
    assert valid.tolist() == [True] * 11 + [False]
    assert [ref for batch in batches for ref in batch.references] == [*speech.references(), ""]
    assert [name for batch in batches for name in batch.ids] == [*speech.ids(), ""]
    assert np.concatenate([batch.index_B for batch in batches]).tolist() == [*range(11), -1]
    assert batches[0].labels_BT is None


def test_it_can_be_walked_over_again_and_left_half_way(speech):
    pipeline = EvaluationPipeline(speech, CONFIG)
    walk = iter(pipeline)
    first = next(walk)
    walk.close()
    np.testing.assert_array_equal(next(iter(pipeline)).samples_BW, first.samples_BW)
    assert len(list(pipeline)) == 3


def test_unreadable_rows_are_listed_and_the_others_counted_once(flawed):
    pipeline = EvaluationPipeline(flawed, CONFIG)
    batches = list(pipeline)
    read = [int(index) for batch in batches for index in batch.index_B[batch.valid_B]]
    assert read == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert [skip.index for skip in pipeline.skipped.samples()] == [3, 7]
    list(pipeline)
    assert len(pipeline.skipped) == 2


def test_only_chosen_rows_are_read_on_request(speech):
    batches = list(EvaluationPipeline(speech, CONFIG, indices=[9, 2]))
    assert [batch.index_B.tolist() for batch in batches] == [[9, 2, -1, -1]]
    assert list(EvaluationPipeline(speech, CONFIG, indices=[])) == []


def test_labels_are_made_for_the_loss_and_never_cost_a_row(speech, english_tokenizer):
    texts = [*speech.references()[:-2], "word " * 400, None]
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=64))
    pipeline = EvaluationPipeline(speech.with_columns({"text": texts}), CONFIG, labels=builder)
    batches = list(pipeline)
    assert sum(int(batch.valid_B.sum()) for batch in batches) == 11
    assert batches[-1].references == [texts[8], texts[9], "", ""]  # never cut
    assert batches[-1].loss_mask_BT.any(axis=1).tolist() == [True, False, False, False]
    assert pipeline.without_loss.counts() == {"with too long a label": 1, "without label": 1}
    assert not len(pipeline.skipped)


def test_recordings_over_thirty_seconds_end_a_short_form_run(speech, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 30 + 1, np.float32), 16_000)
    soundfile.write(tmp_path / "full.wav", np.zeros(16_000 * 30, np.float32), 16_000)
    (tmp_path / "rows.jsonl").write_text('{"audio": "full.wav"}\n{"audio": "long.wav"}\n')
    data = load_table(DatasetSpec(name=str(tmp_path / "rows.jsonl")))
    with pytest.raises(InputError, match="sample 'rows:1' is too long for a short-form job"):
        list(EvaluationPipeline(data, CONFIG))
    skipping = EvaluationPipeline(data, CONFIG, too_long="skip")
    assert [batch.valid_B.sum() for batch in skipping] == [1]
    assert skipping.skipped.counts() == {"too long": 1}
    told = data.with_columns({"duration": [30.0, 30.1]})
    with pytest.raises(InputError, match=r"30\.10 s of audio; at most 30 s"):
        EvaluationPipeline(told, CONFIG)  # before anything is read


def test_audio_that_is_not_needed_is_left_out_of_evaluation_too(speech):
    batches = list(EvaluationPipeline(speech, CONFIG, needs_audio=lambda index: index >= 8))
    assert [batch.samples_BW is not None for batch in batches] == [False, False, True]
    assert batches[2].has_audio_B.tolist() == [True, True, True, False]


def test_a_stream_gives_the_batches_of_its_table(flac_rows, labels):
    path = str(Path(flac_rows[0]["audio"]).parent / "rows.jsonl")
    (stream,) = load_streams(DatasetSpec(name=path, text_column="text"))
    table = load_table(DatasetSpec(name=path, text_column="text"))
    config = PipelineConfig(batch_size=4, num_threads=2)
    streamed = EvaluationPipeline(stream, config, labels=labels)
    whole = EvaluationPipeline(table, config, labels=labels)
    for _ in range(2):  # it may be walked over again
        found, expected = list(streamed), list(whole)
        assert [batch.references for batch in found] == [batch.references for batch in expected]
        for batch, other in zip(found, expected, strict=True):
            for name in ("samples_BW", "index_B", "valid_B", "labels_BT", "loss_mask_BT"):
                np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))
    assert [sample.index for sample in streamed.skipped.samples()] == [3, 7]


def test_processes_share_a_stream_and_give_equally_many_batches(flac_rows, labels):
    path = str(Path(flac_rows[0]["audio"]).parent / "rows.jsonl")
    (stream,) = load_streams(DatasetSpec(name=path, text_column="text"))
    parts = []
    for shard in range(2):
        config = PipelineConfig(batch_size=2, num_threads=0, shard_index=shard, shard_count=2)
        parts.append(list(EvaluationPipeline(stream, config, labels=labels)))
    assert [len(part) for part in parts] == [3, 3]
    rows = [row for part in parts for batch in part for row in batch.index_B if row >= 0]
    assert sorted(rows) == sorted(set(range(11)) - {3, 7})
    assert {batch.labels_BT.shape for part in parts for batch in part} == {(2, 256)}
