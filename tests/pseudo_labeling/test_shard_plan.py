"""A corpus is always divided into the same units, whoever works on them and wherever they stopped."""

import dataclasses
import itertools

import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.shards.parquet_shard import ParquetShard
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.pseudo_labeling import shard_plan
from flax_distil.pseudo_labeling.shard_plan import StreamShardPlan, TableShardPlan

ROWS = 11


@pytest.fixture(scope="module")
def stream(speech, tmp_path_factory) -> IterableSpeechDataset:
    """Three files of 5, 4 and 2 rows; blocks of the first end after 3 and 5 rows."""
    folder = tmp_path_factory.mktemp("stream")
    table = speech.table.with_format("arrow")[:]
    shards = []
    for name, first, last in (("a", 0, 5), ("b", 5, 9), ("c", 9, ROWS)):
        path = folder / f"{name}.parquet"
        pyarrow.parquet.write_table(table[first:last], path, row_group_size=3)
        shards.append(ParquetShard(name=name, path=str(path)))
    return IterableSpeechDataset(name="prompts", shards=tuple(shards), text_column="text")


def units_of(kind: str, speech, stream):
    if kind == "table":
        return TableShardPlan(speech, samples_per_shard=2)
    return StreamShardPlan(stream, samples_per_shard=2)


def ids_of(units) -> dict[tuple[int, ...], list[str]]:
    return {unit.key: unit.data.ids() for unit in units}


def joined(units) -> list[str]:
    found = ids_of(units)
    return [name for key in sorted(found) for name in found[key]]


def test_units_of_a_table_are_its_rows_in_order(speech):
    units = ids_of(TableShardPlan(speech, samples_per_shard=4).remaining({}, index=0, count=1))
    assert [len(names) for names in units.values()] == [4, 4, 3]
    assert list(units) == [(0,), (1,), (2,)]
    assert list(itertools.chain(*units.values())) == speech.ids()


def test_units_of_a_stream_end_within_blocks_and_with_their_shard(speech, stream):
    units = ids_of(StreamShardPlan(stream, samples_per_shard=2).remaining({}, index=0, count=1))
    assert {key: len(names) for key, names in units.items()} == {
        (0, 0): 2, (0, 1): 2, (0, 2): 1, (1, 0): 2, (1, 1): 2, (2, 0): 2,
    }  # fmt: skip
    assert (
        joined(StreamShardPlan(stream, samples_per_shard=2).remaining({}, index=0, count=1)) == speech.ids()
    )


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["table", "stream"])
def test_processes_share_the_units_of_one(speech, stream, processes, kind):
    alone = ids_of(units_of(kind, speech, stream).remaining({}, index=0, count=1))
    parts = [
        ids_of(units_of(kind, speech, stream).remaining({}, index=process, count=processes))
        for process in range(processes)
    ]
    assert sum(map(len, parts)) == len(alone)
    assert {key: names for part in parts for key, names in part.items()} == alone


@pytest.mark.parametrize("kind", ["table", "stream"])
def test_whatever_is_done_the_rest_is_the_same(speech, stream, kind):
    source = units_of(kind, speech, stream)
    units = list(source.remaining({}, index=0, count=1))
    for stopped in range(len(units) + 1):
        done = {unit.key: unit.after for unit in units[:stopped]}
        rest = [ids_of(source.remaining(done, index=p, count=2)) for p in range(2)]
        assert rest[0] | rest[1] == ids_of(units[stopped:])


def test_a_unit_ends_where_its_audio_fills_the_memory_set_aside(speech, stream, monkeypatch):
    sizes = speech.audio_sizes()
    monkeypatch.setattr(shard_plan, "MAX_SHARD_BYTES", sizes[0] + sizes[1])
    first = next(TableShardPlan(speech, samples_per_shard=ROWS).remaining({}, index=0, count=1))
    assert len(first.data) == 2
    streamed = stream.first_rows().audio_sizes()
    monkeypatch.setattr(shard_plan, "MAX_SHARD_BYTES", streamed[0] + 1)
    first = next(StreamShardPlan(stream, samples_per_shard=ROWS).remaining({}, index=0, count=1))
    assert len(first.data) == 2


def test_sizes_of_recordings_are_known_without_reading_them(speech, flawed, flac_rows):
    assert all(size > 1000 for size in speech.audio_sizes())
    sizes = flawed.audio_sizes()
    assert (sizes[3], sizes[7]) == (len(b"this is not audio"), 0)


def test_files_of_one_stream_with_other_columns_are_told(speech, stream, tmp_path):
    path = tmp_path / "mixed.parquet"
    table = speech.table.with_format("arrow")[:]
    pyarrow.parquet.write_table(table, path, row_group_size=3)
    shard = ParquetShard(name="mixed", path=str(path))

    class Changing:
        name = "changing"

        def blocks(self, cursor=None):
            for number, block in enumerate(shard.blocks(cursor)):
                numbers = [[1], ["one"]][number % 2] * len(block.table)
                yield type(block)(
                    table=block.table.append_column("n", pyarrow.array(numbers)),
                    first_row=block.first_row,
                    after=block.after,
                )

    units = StreamShardPlan(dataclasses.replace(stream, shards=(Changing(),)), samples_per_shard=ROWS)
    with pytest.raises(InputError, match="files of data set 'prompts' have columns of different types"):
        list(units.remaining({}, index=0, count=1))
