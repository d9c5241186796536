"""Filters: each on its own, by hand, and what they say about what they dropped."""

import dataclasses

import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filter_tables import FilterResult, filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.shards.parquet_shard import ParquetShard
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.text.normalizers import get_normalizer


def with_labels(
    speech: SpeechDataset, references: list[str | None], labels: list[str | None]
) -> SpeechDataset:
    rows = speech.select(range(len(labels)))
    columns = {"text": references, "whisper_transcript": labels}
    data = rows.with_columns(columns)
    return SpeechDataset(
        name="prompts", table=data.table, text_column="text", label_column="whisper_transcript"
    )


def filtered(
    data: SpeechDataset, language: str = "en", labels: LabelBuilder | None = None, **config: float
) -> FilterResult:
    row_filter = RowFilter(
        data, build(FilterConfig, config), normalize=get_normalizer(language), labels=labels
    )
    return filter_rows(data, row_filter)


def kept(data: SpeechDataset, **config: float) -> list[int]:
    return filtered(data, **config).kept.tolist()


def test_rows_stay_below_the_wer_threshold_and_go_at_it(speech):
    ten_words = "we all live in a house near the old mill"
    data = with_labels(
        speech,
        ["We all.", ten_words, ten_words, "[noise]", None, "Hello there."],
        [
            " we all",
            ten_words.replace("mill", "hill"),
            ten_words.replace("old mill", "cold hill"),
            " anything",
            " anything",
            "<|0.00|> Hello<|0.50|><|0.50|> there.<|1.00|>",
        ],
    )
    result = filtered(data, wer_threshold=20.0)
    # WER: 0, 10, 20 (not below 20), two references with nothing to compare with, 0.
    assert result.kept.tolist() == [0, 1, 5]
    assert result.dropped == {"with an empty reference": 2, "above the WER threshold": 1}
    assert result.summary() == (
        "kept 3 of 6 samples (dropped 2 with an empty reference, 1 above the WER threshold)"
    )
    assert kept(data, wer_threshold=10.0) == [0, 5]


def test_hallucinated_insertions_count_as_errors(speech):
    data = with_labels(speech, ["hello", "hello"], ["hello", "hello hello hello hello"])
    assert kept(data, wer_threshold=100.0) == [0]


def test_the_filter_compares_in_the_language_of_the_texts(speech):
    data = with_labels(speech, ["colour", "colour"], ["color", "colour"])
    assert kept(data, wer_threshold=10.0) == [0, 1]  # English spelling is one
    french = filtered(data, "fr", wer_threshold=10.0)
    assert french.kept.tolist() == [1]


def test_durations_must_lie_strictly_within_the_bounds(speech):
    data = speech.select(range(5)).with_columns({"duration": [0.5, 1.0, 29.99, 30.0, None]})
    assert kept(data, min_duration_in_seconds=0.5) == [1, 2, 4]  # unknown: judged when decoded
    assert kept(data, max_duration_in_seconds=1.0) == [0, 4]


def test_long_and_missing_labels_are_dropped_and_counted(speech, english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=5))
    data = with_labels(speech, ["x"] * 3, [" Hello world.", " Hello big world.", None])
    result = filtered(data, labels=builder)
    assert result.kept.tolist() == [0]
    assert result.dropped == {"with too long a label": 1, "without label": 1}


def test_filters_without_references_judge_the_teacher(speech):
    data = with_labels(speech, [None] * 4, [" fine", " fine", " la" * 100, " fine"]).with_columns(
        {"avg_logprob": [-0.2, -1.5, -0.1, None], "no_speech_prob": [0.1, 0.1, 0.1, 0.9]}
    )
    assert kept(data, min_avg_logprob=-1.0) == [0, 2]
    assert kept(data, max_no_speech_prob=0.6) == [0, 1, 2]
    assert kept(data, max_compression_ratio=2.4) == [0, 1, 3]
    stored = data.with_columns({"compression_ratio": [9.0, 1.0, 1.0, 1.0]})
    assert kept(stored, max_compression_ratio=2.4) == [1, 2, 3]


def test_labels_in_upper_case_only_go_where_that_is_asked_for(speech):
    labels = [" HELLO THERE.", " Hello.", "<|0.00|> HELLO.<|1.00|>", "你好", " 42!", " TV is on"]
    data = with_labels(speech, ["HELLO"] * 6, labels)
    assert kept(data) == [0, 1, 2, 3, 4, 5]
    result = filtered(data, drop_upper_case=True)
    assert result.kept.tolist() == [1, 3, 4, 5]
    assert result.dropped == {"in upper case only": 2}


def test_upper_case_references_do_for_the_word_error_rate(speech):
    data = with_labels(speech, ["HELLO THERE", "GOOD BYE"], [" Hello there.", " Good night."])
    assert kept(data, wer_threshold=10.0, drop_upper_case=True) == [0]


def test_empty_texts_are_silence_from_a_teacher_and_unknown_from_a_person(speech):
    texts = ["", "  ", "Hello."]
    pseudo = with_labels(speech, [None] * 3, texts)
    assert kept(pseudo) == [0, 1, 2]
    references = dataclasses.replace(pseudo, text_column="whisper_transcript", label_column=None)
    result = filtered(references)
    assert result.kept.tolist() == [2]
    assert result.dropped == {"with an empty reference": 2}


def test_a_stream_is_judged_as_the_table_is(speech, tmp_path):
    """The same rows, read from three Parquet files piece by piece."""
    references = [text or "" for text in speech.references()]
    labels = [f" {text}" for text in references]
    labels[2], labels[5], labels[8] = " something else", None, " SHOUTED"
    data = with_labels(speech, references, labels).with_columns({"no_speech_prob": [0.1, 0.9] * 5 + [None]})
    options = {"wer_threshold": 50.0, "max_no_speech_prob": 0.5, "max_duration_in_seconds": 6.0}
    table, expected = DropReport(), build(FilterConfig, options, drop_upper_case=True)
    result = filter_rows(data, RowFilter(data, expected, normalize=get_normalizer("en")), report=table)

    shards = []
    for number, rows in enumerate([range(4), range(4, 9), range(9, 11)]):
        path = tmp_path / f"{number}.parquet"
        data.select(rows).table.to_parquet(path)
        shards.append(ParquetShard(name=path.name, path=str(path)))
    stream = IterableSpeechDataset(
        name="prompts", shards=tuple(shards), text_column="text", label_column="whisper_transcript"
    )
    drop_reason = RowFilter(stream.first_rows(), expected, normalize=get_normalizer("en")).drop_reason
    streamed, kept_ids = DropReport(), []
    for shard in range(3):
        for block, _ in stream.blocks(shard):
            for row in block.rows_without_audio():
                reason = drop_reason(row)
                streamed.add("prompts", reason, row.duration_seconds)
                kept_ids += [] if reason else [row.sample_id]
    assert kept_ids == [data.ids()[index] for index in result.kept]
    assert streamed.get_state() == table.get_state()
    assert len(table.get_state()["prompts"]) >= 5


def test_without_settings_only_unusable_rows_go(speech):
    assert kept(speech) == list(range(len(speech)))


def test_a_filter_without_its_column_is_refused(speech):
    with pytest.raises(InputError, match="no column of pseudo-labels"):
        kept(speech, wer_threshold=10.0)
    with pytest.raises(InputError, match="needs the column 'avg_logprob'"):
        kept(speech, min_avg_logprob=-1.0)
    with pytest.raises(InputError, match=r"needs the column 'no_speech_prob', .* \(it has .*text, duration"):
        kept(speech, max_no_speech_prob=0.6)
    unnamed = dataclasses.replace(speech, text_column=None)
    with pytest.raises(InputError, match="name one of audio, text, duration, id"):
        kept(unnamed, wer_threshold=10.0)


def test_filters_that_leave_nothing_say_why(speech):
    data = with_labels(speech, ["one"] * 2, [" two"] * 2)
    with pytest.raises(InputError, match=r"dropped 2 above the WER threshold\); loosen"):
        kept(data, wer_threshold=10.0)


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match="min_duration_in_seconds 5 and max_duration_in_seconds 2 leave no"):
        build(FilterConfig, min_duration_in_seconds=5.0, max_duration_in_seconds=2.0)
    with pytest.raises(InputError, match="max_duration_in_seconds 40 is more than the 30 s"):
        build(FilterConfig, max_duration_in_seconds=40.0)
    with pytest.raises(InputError, match="wer_threshold must be a positive percentage"):
        FilterConfig(wer_threshold=0.0)
    with pytest.raises(InputError, match="max_no_speech_prob must be a probability between 0 and 1, got 60"):
        FilterConfig(max_no_speech_prob=60.0)
    with pytest.raises(InputError, match=r"min_avg_logprob must be the logarithm .*, got 0\.5"):
        FilterConfig(min_avg_logprob=0.5)
    with pytest.raises(InputError, match="got nan"):
        FilterConfig(max_no_speech_prob=float("nan"))
