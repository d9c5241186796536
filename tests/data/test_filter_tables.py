"""Filters over whole tables: the same verdicts from any number of processes, from the column, from disk."""

import dataclasses
from unittest import mock

import numpy as np
import pytest

from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.preprocessing import filter_tables, filters
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filter_tables import filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.training.batches import LABEL_BUCKETS, smallest_bucket
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.text.normalizers import get_normalizer

CONFIG = FilterConfig(wer_threshold=10.0)


@pytest.fixture(scope="module")
def labeled(train) -> SpeechDataset:
    """Sixty training prompts; of every fifth the last word is missing, one has no label, one is too long."""
    train = train.select(range(60))
    texts = [text or "" for text in train.references()]
    said = [text if number % 5 else text.rsplit(" ", 1)[0] for number, text in enumerate(texts)]
    said[7], said[8] = None, "word " * 300
    durations = [40.0 if number == 9 else 3.0 for number in range(len(texts))]
    data = train.with_columns({"whisper_transcript": said, "duration": durations})
    return dataclasses.replace(data, label_column="whisper_transcript")


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    monkeypatch.setattr(filter_tables, "BATCH_ROWS", 20)
    monkeypatch.setattr(filter_tables, "MANY_ROWS", 50)


def make_filter(data: SpeechDataset, labels: LabelBuilder, config: FilterConfig = CONFIG) -> RowFilter:
    return RowFilter(data, config, normalize=get_normalizer("en"), labels=labels)


def one_by_one(data: SpeechDataset, labels: LabelBuilder) -> tuple[list[int], dict]:
    """The table walked row by row, as a stream is."""
    row_filter, report, kept = make_filter(data, labels), DropReport(), []
    for row in data.rows_without_audio():
        reason = row_filter.drop_reason(row)
        report.add(data.name, reason, row.duration_seconds)
        kept += [] if reason else [row.index]
    return kept, report.get_state()


def test_several_processes_give_the_verdicts_of_one(labeled, labels, tmp_path):
    kept, counted = one_by_one(labeled, labels)
    report = DropReport()
    result = filter_rows(labeled, make_filter(labeled, labels), report=report, workers=2, cache_dir=tmp_path)
    assert result.kept.tolist() == kept
    assert report.get_state() == counted
    assert result.total == 60
    assert result.longest_label == labels.longest(labeled.select(kept).labels())


def test_verdicts_are_found_again_for_the_same_rows_and_settings_only(
    labeled, labels, tmp_path, english_tokenizer
):
    def judged(data: SpeechDataset, builder: LabelBuilder = labels, config: FilterConfig = CONFIG) -> int:
        """Return how many rows were judged."""
        row_filter = make_filter(data, builder, config)
        with mock.patch.object(
            row_filter, "drop_reason_and_length", side_effect=row_filter.drop_reason_and_length
        ) as calls:
            results.append(filter_rows(data, row_filter, workers=1, cache_dir=tmp_path).kept)
        return calls.call_count

    results: list[np.ndarray] = []
    assert [judged(labeled), judged(labeled)] == [60, 0]
    np.testing.assert_array_equal(*results)
    assert judged(labeled, config=FilterConfig(wer_threshold=50.0)) == 60
    assert judged(labeled, LabelBuilder(english_tokenizer, LabelConfig(max_label_length=20))) == 60
    changed = labeled.labels()
    changed[59] = "another label"
    assert judged(labeled.with_columns({"whisper_transcript": changed})) == 60
    (damaged, *_) = (tmp_path / "flax_distil_filters").iterdir()
    for path in damaged.parent.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert judged(labeled) == 60


def with_wer(data: SpeechDataset) -> SpeechDataset:
    pairs = zip(data.references(), data.labels(), strict=True)
    rates = [sample_wer(text or "", label or "", get_normalizer("en")) for text, label in pairs]
    return data.with_columns({"wer": rates})


def test_error_rates_that_labeling_wrote_are_used(labeled, labels, monkeypatch):
    told = with_wer(labeled)
    row_filter = make_filter(told, labels)
    monkeypatch.setattr(filters, "sample_wer", lambda *_: pytest.fail("an error rate was computed"))
    assert filter_rows(told, row_filter).kept.tolist() == filter_rows_without_column(
        labeled, labels, monkeypatch
    )


def filter_rows_without_column(data: SpeechDataset, labels: LabelBuilder, monkeypatch) -> list[int]:
    monkeypatch.setattr(filters, "sample_wer", sample_wer)
    return filter_rows(data, make_filter(data, labels)).kept.tolist()


def test_error_rates_of_other_texts_or_another_normalizer_are_not_believed(labeled, labels):
    expected = filter_rows(labeled, make_filter(labeled, labels)).kept.tolist()
    for rates in ([0.0] * 60, [None] * 60, ["0"] * 60):
        wrong = labeled.with_columns({"wer": rates})
        assert filter_rows(wrong, make_filter(wrong, labels)).kept.tolist() == expected


def test_processes_that_train_together_count_no_label_again(labeled, labels, monkeypatch):
    plain = dataclasses.replace(labeled, speaker_column=None)
    result = filter_rows(plain, make_filter(plain, labels))
    assert result.longest_label is not None
    source = TableSource(
        data=plain.select(result.kept.tolist()), labels=labels, longest_label=result.longest_label
    )
    monkeypatch.setattr(LabelBuilder, "length", lambda *_: pytest.fail("a label was counted"))
    config = PipelineConfig(batch_size=1, num_threads=0, shard_index=0, shard_count=2)
    pipeline = TrainingPipeline(TrainingData(sources=[source]), config, seed=0)
    assert next(pipeline).labels_BT.shape == (1, smallest_bucket(result.longest_label, LABEL_BUCKETS))
    pipeline.close()
