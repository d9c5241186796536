"""Prompts of the text before: of the row that really came before, or of the column that tells them."""

import dataclasses
import json
from pathlib import Path

import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import SampleError
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
from flax_distil.data.preprocessing.filter_tables import filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder, sample_random
from flax_distil.data.preprocessing.packing import pack_rows, rows_before
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.data.training.training_sources import StreamSource, TableSource
from flax_distil.text.normalizers import get_normalizer
from tests.data.stream_checks import all_rows

ALWAYS = LabelConfig(condition_on_prev_probability=1.0)


@pytest.fixture(scope="module")
def always(english_tokenizer) -> LabelBuilder:
    return LabelBuilder(english_tokenizer, ALWAYS)


@pytest.fixture
def manifest(corpus_rows, tmp_path) -> str:
    """Six rows of one speaker; the filters drop the third, whose duration is 40 s."""
    rows = [
        {
            "audio": row["audio"],
            "text": f"Row {number}.",
            "duration": 40.0 if number == 2 else row["duration"],
        }
        for number, row in enumerate(corpus_rows[:6])
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "speaker_id": "anna"}) + "\n" for row in rows))
    return str(path)


def filtered(data: SpeechDataset, labels: LabelBuilder) -> SpeechDataset:
    row_filter = RowFilter(data, FilterConfig(), normalize=get_normalizer("en"), labels=labels)
    return data.select(filter_rows(data, row_filter).kept.tolist())


EXPECTED = {
    "Row 0.": (),
    "Row 1.": ("Row 0.",),
    "Row 3.": (),  # not "Row 1."
    "Row 4.": ("Row 3.",),
    "Row 5.": ("Row 4.",),
}


def test_a_row_behind_one_that_was_dropped_has_no_prompt(manifest, always):
    table = TableSource(
        data=filtered(load_table(DatasetSpec(name=manifest, text_column="text")), always), labels=always
    )
    read = [table.read(number) for number in range(len(table))]
    assert {sample.rows[0].label: sample.previous for sample in read} == EXPECTED
    (stream,) = load_streams(DatasetSpec(name=manifest, text_column="text"))
    source = StreamSource(
        stream=stream, labels=always, filters=FilterConfig(), normalize=get_normalizer("en")
    )
    samples, _ = source.samples(all_rows(stream), SkippedSamples())
    assert {sample.rows[0].label: sample.previous for sample in samples} == EXPECTED


def test_a_pack_is_prompted_as_far_as_nothing_is_missing(manifest, always):
    whole = load_table(DatasetSpec(name=manifest, text_column="text"))
    data = whole.with_columns({"duration": [9.0, 9.0, 40.0, 9.0, 16.0, 9.0]})
    packs = pack_rows(filtered(data, always), labels=always)
    read = [packs.read(number) for number in range(len(packs))]
    assert [[row.label for row in sample.rows] for sample in read] == [
        ["Row 0.", "Row 1.", "Row 3."],
        ["Row 4.", "Row 5."],
    ]
    # Rows 0 and 1 were said before the gap, row 2.
    assert [sample.previous for sample in read] == [(), ("Row 3.",)]


def test_rows_of_another_file_do_not_come_before(manifest, always):
    (stream,) = load_streams(DatasetSpec(name=manifest, text_column="text"))
    first, second = all_rows(stream)[:2]
    assert rows_before(second, [first], has_speakers=True) == (first,)
    assert rows_before(second, [dataclasses.replace(first, origin="another")], has_speakers=True) == ()


def test_sorted_by_speaker_neighbors_are_those_of_one_speaker(manifest, always):
    data = load_table(DatasetSpec(name=manifest, text_column="text"))
    data = data.with_columns(
        {"speaker_id": ["ben", "anna", None, "ben", "anna", "anna"], "duration": [5.0] * 6}
    )
    ordered = dataclasses.replace(data, speaker_column="speaker_id").group_by_speaker()
    assert ordered.references() == ["Row 1.", "Row 4.", "Row 5.", "Row 0.", "Row 3.", "Row 2."]
    table = TableSource(data=ordered, labels=always)
    assert [table.read(number).previous for number in range(5)] == [
        (), ("Row 1.",), ("Row 4.",), (), ("Row 0.",),
    ]  # fmt: skip
    packs = pack_rows(ordered, labels=always)
    assert [len(rows) for rows in packs.packs] == [3, 2, 1]


def write_tokens(manifest: str, tokens: list) -> str:
    path = Path(manifest)
    rows = [json.loads(line) for line in path.read_text().splitlines()[: len(tokens)]]
    told = zip(rows, tokens, strict=True)
    lines = [{**row, "duration": 2.0, "condition_on_prev": previous} for row, previous in told]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def test_a_column_of_token_ids_is_the_text_before(manifest, always, english_tokenizer):
    """As the original's labelling writes it; where it is empty there is no prompt, whoever spoke before."""
    special = english_tokenizer.special
    path = write_tokens(manifest, [None, [0, 1, 2], [special.sot, 5, special.timestamp_begin, special.eot]])
    table = TableSource(data=load_table(DatasetSpec(name=path, text_column="text")), labels=always)
    assert table.gives_prompts
    random = sample_random(seed=0, epoch=0, sample_id="a")
    prompts = []
    for number in range(3):
        sample = table.read(number)
        label = always.build(sample.rows[0].label, previous=sample.previous, random=random)
        prompts.append(label.tokens[: label.given].tolist())
    assert prompts == [
        [special.sot],
        [special.sot_prev, 0, 1, 2, special.sot],
        [special.sot_prev, 5, special.sot],
    ]
    packs = pack_rows(load_table(DatasetSpec(name=path, text_column="text")).select([1, 2]), labels=always)
    assert packs.read(0).previous == (0, 1, 2)


def test_ids_that_are_no_tokens_cost_their_row(manifest, english_tokenizer):
    never = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=0.0))
    data = load_table(DatasetSpec(name=write_tokens(manifest, [[10**9], [-1]]), text_column="text"))
    for number in range(2):
        sample = TableSource(data=data, labels=never).read(number)
        with pytest.raises(SampleError, match="its text before has the token id"):
            never.build("x", previous=sample.previous, random=sample_random(seed=0, epoch=0, sample_id="a"))
    path = write_tokens(manifest, [["a"], ["b"]])
    with pytest.raises(InputError, match=r"column 'condition_on_prev' .* expected token ids"):
        load_table(DatasetSpec(name=path, text_column="text"))
