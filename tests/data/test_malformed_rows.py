"""Values of the wrong type, in every format: a row is left out and named, or one sentence tells why."""

import contextlib
import json
import socket
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits
from flax_distil.data.preprocessing.config import FilterConfig
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filter_tables import filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.preprocessing.packing import pack_rows
from flax_distil.data.preprocessing.segmentation import cut_rows
from flax_distil.data.preprocessing.statistics import compute_statistics
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_tables
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingData
from flax_distil.storage.retries import RetryPolicy, SourceError
from flax_distil.text.normalizers import get_normalizer
from tests.data.malformed_rows import WRITERS, MalformedSource, malformed_rows

CONFIG = PipelineConfig(batch_size=2, num_threads=0)
OPTIONS = {"text_column": "text", "label_column": "whisper_transcript"}


def use_table(source: MalformedSource, labels: LabelBuilder, cache: Path) -> int:
    """Open it as training data and as evaluation data, read all rows, and return how many are left."""
    (data,) = load_tables(DatasetSpec(name=str(source.path), cache_dir=cache, **OPTIONS))
    skipped = SkippedSamples()
    for batch in EvaluationPipeline(data, CONFIG, labels=labels, too_long="skip"):
        assert len(batch.references) == CONFIG.batch_size
    row_filter = RowFilter(
        data, FilterConfig(wer_threshold=50.0), normalize=get_normalizer("en"), labels=labels
    )
    kept = data.select(filter_rows(data, row_filter, skipped=skipped).kept.tolist())
    table = TableSource(data=kept, labels=labels)
    statistics, _ = compute_statistics(table, limits=DurationLimits(), skipped=skipped, window=8, max_rows=8)
    with contextlib.closing(
        TrainingPipeline(TrainingData(sources=[table], skipped=skipped), CONFIG, seed=0)
    ) as pipeline:
        next(pipeline)
    assert all("\n" not in sample.reason and len(sample.reason) < 1000 for sample in skipped.samples())
    return len(statistics.row_seconds)


def use_stream(source: MalformedSource, labels: LabelBuilder, cache: Path) -> int:
    (stream,) = load_streams(DatasetSpec(name=str(source.path), cache_dir=cache, **OPTIONS))
    filters = FilterConfig(wer_threshold=50.0)
    opened = StreamSource(stream=stream, labels=labels, filters=filters, normalize=get_normalizer("en"))
    skipped = SkippedSamples()
    statistics, _ = compute_statistics(opened, limits=DurationLimits(), skipped=skipped, window=8, max_rows=8)
    with contextlib.closing(
        TrainingPipeline(TrainingData(sources=[opened], skipped=skipped), CONFIG, seed=0)
    ) as pipeline:
        next(pipeline)
    return len(statistics.row_seconds)


def run(source: MalformedSource, labels: LabelBuilder, cache: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for way, use in (("table", use_table), ("stream", use_stream)):
        try:
            rows = use(source, labels, cache)
        except InputError as error:
            message = str(error)
            assert message
            assert "\n" not in message, message
            assert len(message) < 1500, message
            outcomes[f"{way}: one sentence"] += 1
        except Exception as error:
            raise AssertionError(f"{way} of {source}: {type(error).__name__}: {error}") from error
        else:
            outcomes[f"{way}: read"] += 1
            assert rows >= 0
    return outcomes


def check(seed: int, count: int, labels: LabelBuilder, cache: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for source in malformed_rows(seed, count):
        outcomes += run(source, labels, cache)
    return outcomes


def test_rows_of_wrong_types_are_left_out_or_told_in_a_sentence(labels, tmp_path):
    outcomes = check(1, 3 * len(WRITERS), labels, tmp_path)
    assert min(outcomes.values()) > 3  # all ways out are met


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_rows_of_wrong_types(seed, labels, tmp_path):
    outcomes = check(seed, 12 * len(WRITERS), labels, tmp_path)
    print(json.dumps(outcomes))
    assert min(outcomes.values()) > 12


def test_a_stream_of_which_no_recording_can_be_read_ends(labels, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(b"this is not audio")
    rows = [{"audio": f"{number}.wav", "text": "words"} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (stream,) = load_streams(DatasetSpec(name=str(tmp_path / "rows.jsonl"), text_column="text"))
    source = StreamSource(
        stream=stream, labels=labels, filters=FilterConfig(), normalize=get_normalizer("en")
    )
    pipeline = TrainingPipeline(TrainingData(sources=[source]), CONFIG, seed=0)
    with pytest.raises(InputError, match="no sample of data set 'rows' can be used in a whole pass"):
        list(islice(pipeline, 10))
    pipeline.close()


@pytest.mark.parametrize("label", [7, True, ["a"], {"a": "b"}])
def test_a_label_that_is_no_text_is_dropped_counted_and_named(label, labels, speech, tmp_path):
    path = str(speech.table[0]["audio"]["path"])
    rows = [{"audio": path, "text": "fine"}, {"audio": path, "text": label}, {"audio": path, "text": "7"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data,) = load_tables(DatasetSpec(name=str(tmp_path / "rows.jsonl"), text_column="text"))
    report, skipped = DropReport(), SkippedSamples()
    row_filter = RowFilter(data, FilterConfig(), normalize=get_normalizer("en"), labels=labels)
    assert filter_rows(data, row_filter, report=report, skipped=skipped).kept.tolist() == [0, 2]
    assert report.get_state()["rows"]["with a value of the wrong kind"]["rows"] == 1
    (named,) = skipped.samples()
    assert (named.sample_id, named.reason.startswith("column 'text' holds ")) == ("rows:1", True)
    (evaluated,) = EvaluationPipeline(data, PipelineConfig(batch_size=3, num_threads=0))
    assert evaluated.references == ["fine", "7", ""]


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [True, False, None], [["a"], ["b"], []], [{"a": 1}, None, None]], ids=str
)
def test_a_column_of_labels_that_holds_no_texts_is_refused(values, speech, tmp_path):
    path = str(speech.table[0]["audio"]["path"])
    rows = [{"audio": path, "text": value} for value in values]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"column 'text' of data set .* is of type .*: expected texts"):
        load_tables(DatasetSpec(name=str(tmp_path / "rows.jsonl"), text_column="text"))


def test_files_of_a_folder_may_differ_in_their_columns(speech, tmp_path):
    path = str(speech.table[0]["audio"]["path"])
    rows = [{"audio": path, "text": "a", "age": 3}, {"audio": path, "text": "b", "age": 2.5, "more": [1]}]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
    (data,) = load_tables(DatasetSpec(name=str(tmp_path), text_column="text"))
    assert data.table["age"][:] == [3.0, 2.5]
    assert data.table["more"][:] == [None, [1]]
    (tmp_path / "1.jsonl").write_text(json.dumps({**rows[1], "age": "old"}) + "\n")
    with pytest.raises(InputError, match=r"have columns of different types .*age"):
        load_tables(DatasetSpec(name=str(tmp_path), text_column="text"))


def test_a_path_with_a_nul_character_is_skipped_and_named(speech, tmp_path):
    path = str(speech.table[0]["audio"]["path"])
    rows = [{"file_name": path, "text": "a"}, {"file_name": "b\0.wav", "text": "b"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data,) = load_tables(DatasetSpec(name=str(tmp_path / "metadata.jsonl"), text_column="text"))
    assert data.audio_sizes()[1] == 0
    data.fingerprint()
    pipeline = EvaluationPipeline(data, PipelineConfig(batch_size=2, num_threads=0))
    assert [batch.references for batch in pipeline] == [["a", ""]]
    (named,) = pipeline.skipped.samples()
    assert "no path has a NUL character in it" in named.reason


def test_a_host_that_does_not_answer_is_waited_for_as_long_as_was_said(labels, tmp_path):
    with socket.socket() as listener:  # accepts nothing
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"audio": address, "text": "words"}) + "\n")
    policy = RetryPolicy(total_seconds=0.2, first_pause_seconds=0.05)
    path = str(tmp_path / "rows.jsonl")
    (data,) = load_tables(DatasetSpec(name=path, text_column="text", policy=policy))
    (stream,) = load_streams(DatasetSpec(name=path, text_column="text", policy=policy))
    streamed = StreamSource(
        stream=stream, labels=labels, filters=FilterConfig(), normalize=get_normalizer("en"), concatenate=True
    )
    for source in (TableSource(data=data, labels=labels), streamed):
        with pytest.raises(SourceError, match=r"tried [2-9] times in 0 s\)"):
            compute_statistics(
                source, limits=DurationLimits(), skipped=SkippedSamples(), window=8, max_rows=8
            )
    with pytest.raises(SourceError, match="start the same command again"):
        pack_rows(data)
    with pytest.raises(SourceError, match="start the same command again"):
        list(cut_rows(data.rows(), detector=VoiceActivity("energy"), skipped=SkippedSamples()))


def test_the_same_seed_gives_the_same_files():
    def contents(seed: int) -> list[bytes]:
        return [source.path.read_bytes() for source in malformed_rows(seed, 2)]

    assert contents(0) == contents(0) != contents(1)
