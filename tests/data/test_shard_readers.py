"""Shards of every format, here and on a server, give the same rows from every cursor."""

import dataclasses
import io
import itertools
import json
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.shards import shard as shards
from flax_distil.data.shards.arrow_shard import ArrowShard
from flax_distil.data.shards.parquet_shard import ParquetShard
from flax_distil.data.shards.row_columns import PROBLEMS_COLUMN
from flax_distil.data.shards.shard import Shard
from flax_distil.data.shards.table_shard import TableShard
from flax_distil.data.shards.tar_shard import TarShard
from flax_distil.storage import remote_files as remote
from flax_distil.storage.retries import RetryPolicy, SourceError
from tests.data.flaky_http_server import Behavior, serving

QUICK = RetryPolicy(
    total_seconds=60.0, first_pause_seconds=0.01, largest_pause_seconds=0.02, read_seconds=0.2
)
BRIEF = RetryPolicy(total_seconds=0.3, first_pause_seconds=0.05, largest_pause_seconds=0.1, read_seconds=0.2)
ROWS = 200


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    draws = random.Random(7)
    return [
        {
            "id": f"s{number % 3}/{number:04d}",
            "audio": {"bytes": draws.randbytes(draws.randrange(10, 2000)), "path": f"{number:04d}.flac"},
            "text": f"text {number}",
            "speaker": number % 3,
        }
        for number in range(ROWS)
    ]


def write_parquet(rows: list[dict], path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=90)


def write_stream(rows: list[dict], path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)


def write_file(rows: list[dict], path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_tar(rows: list[dict], path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        add_member(archive, "README", b"not a sample")
        for row in rows:
            add_member(archive, f"{row['id']}.txt", row["text"].encode())
            add_member(archive, f"{row['id']}.flac", row["audio"]["bytes"])
            add_member(archive, f"{row['id']}.json", json.dumps({"speaker": row["speaker"]}).encode())


@dataclass(frozen=True)
class Format:
    write: Callable[[list[dict], Path], None]
    reader: type
    suffix: str


FORMATS = {
    "parquet": Format(write_parquet, ParquetShard, ".parquet"),
    "stream": Format(write_stream, ArrowShard, ".arrow"),
    "file": Format(write_file, ArrowShard, ".arrow"),
    "tar": Format(write_tar, TarShard, ".tar"),
}
EVERY_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


@pytest.fixture(autouse=True)
def small_requests(monkeypatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 13)


def read(shard: Shard, cursor=None) -> list[dict]:
    return [row for block in shard.blocks(cursor) for row in block.table.to_pylist()]


def check_every_cursor(shard: Shard, rows: list[dict]) -> None:
    seen = 0
    cursors = []
    for block in shard.blocks():
        assert block.first_row == seen
        assert 0 < len(block.table) <= shards.BLOCK_ROWS
        seen += len(block.table)
        cursors.append((block.after, seen))
    assert cursors.pop() == (None, len(rows))
    assert len(cursors) >= 3
    for cursor, number in cursors:
        assert read(shard, json.loads(json.dumps(cursor))) == rows[number:]
        assert next(iter(shard.blocks(cursor))).first_row == number


@EVERY_FORMAT
def test_a_local_shard_resumed_from_any_cursor_gives_exactly_the_rest(form, rows, tmp_path):
    form.write(rows, tmp_path / "rows")
    shard = form.reader(name="rows", path=str(tmp_path / "rows"))
    assert isinstance(shard, Shard)
    assert read(shard) == rows
    check_every_cursor(shard, rows)


@EVERY_FORMAT
def test_a_remote_shard_on_a_bad_server_gives_every_row_once(form, rows, tmp_path):
    form.write(rows, tmp_path / "rows")
    behavior = Behavior(failing=0.3, seed=2)
    with serving(tmp_path, behavior) as address:
        shard = form.reader(name="rows", path=f"{address}/rows", policy=QUICK)
        assert read(shard) == rows
        assert sum(behavior.faults_made.values()) > 5
        behavior.failing = 0.0
        check_every_cursor(shard, rows)


@EVERY_FORMAT
def test_a_server_without_ranges_gives_the_same_rows(form, rows, tmp_path):
    form.write(rows, tmp_path / "rows")
    with serving(tmp_path, Behavior(ranges=False)) as address:
        assert read(form.reader(name="rows", path=f"{address}/rows", policy=QUICK)) == rows


@EVERY_FORMAT
def test_resuming_reads_nothing_that_lies_before(form, rows, tmp_path):
    form.write(rows, tmp_path / "rows")
    behavior = Behavior()
    with serving(tmp_path, behavior) as address:
        shard = form.reader(name="rows", path=f"{address}/rows", policy=QUICK)
        *_, last = (block.after for block in shard.blocks() if block.after is not None)
        whole = len(behavior.seen)
        assert read(shard, last) == rows[last[-1] :]
    requests = len(behavior.seen) - whole
    # Parquet and Arrow decode a row group or record batch (of 90 rows) from its beginning.
    assert requests < whole / 2


@EVERY_FORMAT
def test_a_server_that_is_gone_in_the_middle_leaves_a_cursor_to_go_on_from(form, rows, tmp_path):
    form.write(rows, tmp_path / "rows")
    behavior = Behavior(faults=["500"])
    taken, cursor = [], None
    with serving(tmp_path, behavior) as address:
        shard = form.reader(name="rows", path=f"{address}/rows", policy=BRIEF)
        blocks = shard.blocks()
        for block in itertools.islice(blocks, 2):
            taken += block.table.to_pylist()
            cursor = block.after
        behavior.failing = 1.0
        with pytest.raises(SourceError, match=r"/rows: the server answered 500 .*source_retry_seconds"):
            list(blocks)
        behavior.failing = 0.0
        assert taken + read(shard, cursor) == rows


@EVERY_FORMAT
def test_large_rows_make_small_blocks(form, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr("flax_distil.data.shards.tar_shard.BLOCK_BYTES", 10_000)
    form.write(rows, tmp_path / "rows")
    shard = form.reader(name="rows", path=str(tmp_path / "rows"))
    assert max(block.table.nbytes for block in shard.blocks()) < 20_000
    check_every_cursor(shard, rows)


@EVERY_FORMAT
def test_a_shard_that_was_cut_short_is_named(form, rows, tmp_path):
    path = tmp_path / f"rows{form.suffix}"
    form.write(rows, path)
    data = path.read_bytes()
    for kept in (0.0, 0.01, 0.3, 0.7, 0.95):
        path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(InputError, match=r"cannot read '.*rows\.\w+': it is damaged or cut") as caught:
            read(form.reader(name="rows", path=str(path)))
        assert "\n" not in str(caught.value)


@EVERY_FORMAT
def test_a_shard_that_is_not_there_is_named(form, tmp_path):
    with pytest.raises(InputError, match=r"cannot read '.*lost': No such file"):
        read(form.reader(name="lost", path=str(tmp_path / "lost")))


def test_a_header_damaged_in_the_middle_of_an_archive_is_not_its_end(rows, tmp_path):
    write_tar(rows, tmp_path / "rows.tar")
    data = bytearray((tmp_path / "rows.tar").read_bytes())
    with tarfile.open(tmp_path / "rows.tar") as archive:
        place = archive.getmembers()[100].offset
    data[place : place + 100] = b"x" * 100
    (tmp_path / "rows.tar").write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut short"):
        read(TarShard(name="rows", path=str(tmp_path / "rows.tar")))


def test_a_compressed_archive_is_refused(rows, tmp_path):
    with tarfile.open(tmp_path / "rows.tar.gz", "w:gz") as archive:
        add_member(archive, "a.flac", b"x")
    with pytest.raises(InputError, match=r"it is compressed.*unpack it to a plain \.tar"):
        read(TarShard(name="rows", path=str(tmp_path / "rows.tar.gz")))


def test_two_recordings_of_one_name_in_an_archive_are_told(tmp_path):
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        add_member(archive, "1.5s.flac", b"x")
        add_member(archive, "1.6s.flac", b"y")
        add_member(archive, "2.flac", b"z")
    shard = TarShard(name="rows", path=str(tmp_path / "rows.tar"))
    with pytest.raises(InputError, match=r"two recordings called '1', the second is '1\.6s\.flac'"):
        read(shard)
    schema = pyarrow.schema({"id": pyarrow.string(), "audio": pyarrow.struct({"bytes": pyarrow.binary()})})
    later = read(dataclasses.replace(shard, schema=schema))  # in the middle of a run it is one bad sample
    assert [row["audio"] for row in later] == [None, {"bytes": b"z"}]


def test_samples_of_an_archive_may_lack_or_damage_what_others_have(tmp_path):
    long_name = "x" * 150  # kept in a header of its own
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        add_member(archive, "./a.flac", b"1")
        add_member(archive, "./a.json", b'{"text": "from JSON", "age": 3, "id": "other"}')
        add_member(archive, "._b.flac", b"hidden")
        add_member(archive, "b.txt", b"no recording \xff\n")
        add_member(archive, f"{long_name}.wav", b"2")
        add_member(archive, f"{long_name}.json", b"not JSON")
        add_member(archive, "d.OGG", b"3")
        add_member(archive, "d.json", b'{"text": 7, "age": "old", "extra": 1}')
    shard = TarShard(name="rows", path=str(tmp_path / "rows.tar"), audio_column="sound")
    schema = next(iter(shard.blocks())).table.drop_columns(["extra", PROBLEMS_COLUMN]).schema
    assert schema.names == ["id", "sound", "text", "age"]
    found = read(TarShard(name="rows", path=shard.path, audio_column="sound", schema=schema))
    assert [row["id"] for row in found] == ["a", "b", long_name, "d"]
    assert [row["text"] for row in found] == ["from JSON", "no recording �", None, "7"]
    assert [row["sound"] and row["sound"]["bytes"] for row in found] == [b"1", None, b"2", b"3"]


def test_a_table_is_read_in_blocks_too(rows):
    table = pyarrow.Table.from_pylist([{"audio": f"{n}.flac"} for n in range(200)])
    shard = TableShard(name="rows", table=table)
    check_every_cursor(shard, table.to_pylist())


@pytest.mark.parametrize("name", ["parquet", "tar"])
def test_memory_does_not_grow_with_the_shard(name, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr("flax_distil.data.shards.tar_shard.BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 18)
    noise = random.Random(0).randbytes(1 << 17)
    large = [
        {"id": f"{n:03d}", "audio": {"bytes": noise[n:], "path": f"{n:03d}.flac"}, "text": "", "speaker": n}
        for n in range(240)
    ]
    if name == "parquet":  # one row group of 30 MB
        table = pyarrow.Table.from_pylist(large)
        pyarrow.parquet.write_table(table, tmp_path / "rows", use_dictionary=False, write_batch_size=4)
        del table
    else:
        write_tar(large, tmp_path / "rows")
    with serving(tmp_path) as address:
        shard = FORMATS[name].reader(name="rows", path=f"{address}/rows", policy=QUICK)
        before = pyarrow.total_allocated_bytes()
        tracemalloc.start()
        try:
            held = [pyarrow.total_allocated_bytes() - before for _ in shard.blocks()]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(held) > 25
    assert max(held) + peak < 24 << 20
