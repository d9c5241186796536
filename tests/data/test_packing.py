"""Packing of real prompts: full, in time, of one speaker, the same again after any stop."""

import dataclasses
import logging
from itertools import chain

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.data.decoded_example import TextPart
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder, sample_random
from flax_distil.data.preprocessing.packing import (
    PackedRows,
    Packer,
    PackingReport,
    pack,
    pack_rows,
    with_duration,
)
from flax_distil.data.skipped import SkippedSamples


@pytest.fixture(scope="module")
def rows(train) -> list[Example]:
    return list(train.rows_without_audio())


def of(row: Example, speaker: str | None, seconds: float | None = None) -> Example:
    return dataclasses.replace(row, speaker=speaker, duration_seconds=seconds or row.duration_seconds)


def made(rows: list[Example], **options) -> list[PackedRows]:
    return list(pack(rows, Packer(**{"name": "prompts", "has_speakers": True, **options})))


def indices(packs: list[PackedRows]) -> list[list[int]]:
    return [[row.index for row in pack.rows] for pack in packs]


def test_the_bundled_corpus_fills_its_packs(train, labels):
    packed = pack_rows(train, labels=labels)
    used = [index for rows in packed.packs for index in rows]
    assert sorted(used) == list(range(369))
    assert packed.report.fill >= 0.85
    # The report against a sum by hand.
    seconds = sum(row.duration_seconds for row in train.rows_without_audio())
    assert packed.report.fill == pytest.approx(seconds / (30 * len(packed)))
    assert packed.report.summary() == "joined 369 recordings to 33 samples, 97.1% of 30 s filled"


def test_rows_of_a_pack_are_in_order_and_move_by_a_few_places_only(rows):
    packs = indices(made(rows))
    assert all(pack == sorted(pack) for pack in packs)
    assert [pack[0] for pack in packs] == sorted(pack[0] for pack in packs)
    for number, pack_ in enumerate(packs):
        left = [index for later in packs[number + 1 :] for index in later if index < pack_[-1]]
        assert len(left) < 8


def test_the_same_rows_give_the_same_packs(rows):
    assert made(rows) == made(rows)


def test_there_is_room_for_a_step_more_than_durations_tell(rows):
    # A column's 2.00 s may be 32,001 samples: 101 steps of 0.02 s, of which 14 times as many fit.
    packs = made([of(row, "anna", 2.0) for row in rows[:100]])
    assert {len(pack.rows) for pack in packs[:-1]} == {14}


def test_a_row_of_thirty_seconds_is_a_pack_of_its_own(rows):
    packs = made([of(row, "anna", seconds) for row, seconds in zip(rows, [3.0, 30.0, 3.0], strict=False)])
    assert indices(packs) == [[0, 2], [1]]


def test_speakers_are_never_mixed_and_prompt_nobody_else(rows):
    names = ["anna"] * 30 + ["ben"] * 25 + ["anna"] * 40 + ["carl"] + ["ben"] * 60
    spoken = [of(row, name) for row, name in zip(rows, names, strict=False)]
    packs = made(spoken)
    assert sorted(chain(*indices(packs))) == list(range(len(spoken)))
    told = 0
    before: PackedRows | None = None
    for pack_ in packs:
        (speaker,) = {row.speaker for row in pack_.rows}
        if pack_.previous:
            told += 1
            assert before is not None
            assert before.rows[0].speaker == speaker
            first = pack_.rows[0].index
            count = len(pack_.previous)
            said_before = spoken[first - count : first]
            assert list(pack_.previous) == [row.label for row in said_before]
            assert {row.speaker for row in said_before} == {speaker}
            assert count == 1 or sum(row.duration_seconds for row in said_before) <= 30
        else:
            assert before is None or before.rows[0].speaker != speaker
        before = pack_
    assert 0 < told < len(packs) - 4


def test_a_row_without_speaker_stays_alone_among_rows_that_have_one(rows):
    spoken = [of(row, name, 1.0) for row, name in zip(rows, ["a", "a", None, None, "a"], strict=False)]
    packs = made(spoken)
    assert indices(packs) == [[0, 1], [2], [3], [4]]
    assert [pack.previous for pack in packs] == [()] * 4


def test_without_speakers_neighbors_are_joined_without_prompts_and_the_log_says_so_once(rows, caplog):
    with caplog.at_level(logging.INFO, logger="flax_distil.data.preprocessing.packing"):
        for _ in range(2):
            packs = made([of(row, None) for row in rows], name="unnamed voices", has_speakers=False)
    assert indices(packs) == indices(made(rows))
    assert not any(pack.previous for pack in packs)
    assert [record.getMessage() for record in caplog.records] == [
        "data set 'unnamed voices' has no column of speakers: neighbouring recordings are joined whoever "
        "speaks, and none is prompted with the text before it"
    ]


def test_a_pack_holds_no_more_tokens_than_a_label_may_have(rows, english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=40))
    short = [row for row in rows if builder.length(row.label) <= 40]
    packs = made(short, labels=builder)
    assert len(packs) > len(made(short))
    for pack_ in packs:
        parts = [TextPart(text=row.label, start=0.0, end=0.0) for row in pack_.rows]
        label = builder.build_joined(parts, random=sample_random(seed=0, epoch=0, sample_id="a"))
        assert len(label.decoder_input_ids_T) <= 40


def test_a_flush_ends_what_prompts_refer_to(rows):
    """The next shard's rows of the same speaker were not spoken behind those of this one."""
    packer = Packer(name="prompts", has_speakers=True)
    first = [pack for row in rows[:60] for pack in packer.push(row)] + packer.flush()
    assert [bool(pack.previous) for pack in first] == [False] + [True] * (len(first) - 1)
    assert next(pack.previous for row in rows[60:120] for pack in packer.push(row)) == ()


def test_a_table_gives_the_packs_that_a_stream_gives(train, labels):
    data = train.select(range(90)).with_columns({"speaker": ["anna"] * 50 + ["ben"] * 40})
    packed = pack_rows(data, labels=labels)
    rows = (data.row(index) for index in range(90))
    streamed = list(pack(rows, Packer(name="prompts", has_speakers=True, labels=labels)))
    assert [packed.read(number) for number in range(len(packed))] == streamed


def test_unknown_durations_are_measured_and_unreadable_rows_recorded(flawed):
    skipped = SkippedSamples()
    packed = pack_rows(flawed, skipped=skipped)
    assert sorted(chain(*packed.packs)) == sorted(set(range(11)) - {3, 7})
    assert [sample.index for sample in skipped.samples()] == [3, 7]
    assert {sample.data_set for sample in skipped.samples()} == {flawed.name}
    row = with_duration(flawed.row(0))
    assert row.duration_seconds == len(decode_audio(row.audio["path"])) / SAMPLING_RATE
    with pytest.raises(ValueError, match="measure it"):
        Packer(name="flawed", has_speakers=False).push(flawed.row(0))


def test_a_report_without_packs_has_no_fill():
    assert np.isnan(PackingReport().fill)
