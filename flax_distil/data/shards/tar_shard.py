"""Read WebDataset archives as shards; consecutive members with the same name form one row.

``a/0001.flac``, ``a/0001.txt`` and ``a/0001.json`` form a row with the id ``a/0001``, the recording, the text
in the column ``text``, and a column for each field of the JSON object. Members of other kinds are left out. A
row with two recordings gets no audio, so that it is skipped later. Nothing is unpacked: the name of a member
is only the name of a row.
"""

import json
import os
import posixpath
import tarfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import ID_COLUMN
from flax_distil.data.shards.row_columns import PROBLEMS_COLUMN, fitted_column, is_deep, problems_array
from flax_distil.data.shards.shard import BLOCK_BYTES, BLOCK_ROWS, Block, Cursor
from flax_distil.data.sources.file_kinds import AUDIO_SUFFIXES
from flax_distil.storage.remote_files import ByteFile, open_file
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, damaged_error, strip_query

if TYPE_CHECKING:
    import pyarrow

TEXT_COLUMN = "text"

COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh")
"""First bytes of gzip, Zstandard, xz and bzip2."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TarShard:
    """One uncompressed archive.

    Attributes:
        name: Short name.
        path: Path or address of the file.
        audio_column: Column of recordings.
        schema: Columns of every block. Values that a row lacks are null, and values without a column are left
            out. None takes the columns of the first block that is read.
        policy: Policy for repeating failed requests.
    """

    name: str
    path: str
    audio_column: str = "audio"
    schema: "pyarrow.Schema | None" = None
    policy: RetryPolicy = DEFAULT_POLICY

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the rows from a cursor (position of a member, number of earlier rows) on."""
        start, row = cursor or [0, 0]
        schema = self.schema
        with open_file(self.path, self.policy) as file:
            try:
                if not start and file.read(6).startswith(COMPRESSED):
                    raise InputError(
                        f"cannot read {strip_query(self.path)!r}: it is compressed, so no place in it could "
                        "be found again; unpack it to a plain .tar"
                    )
                for rows, after in _group_rows(self._rows(file, start)):
                    schema = schema or _schema(rows, self.audio_column)
                    yield Block(
                        table=_table(rows, schema),
                        first_row=row,
                        after=None if after is None else [after, row + len(rows)],
                    )
                    row += len(rows)
            except InputError:
                raise
            except (tarfile.TarError, OSError, ValueError) as error:
                raise damaged_error(self.path, error) from error

    def _rows(self, file: ByteFile, start: int) -> Iterator[tuple[Row, int | None]]:
        """Yield each row with the position of the first member of the next row; None after the last row."""
        row: Row = {}
        for archive, member in _members(file, start):
            key, suffix = _split_name(member.name)
            if suffix not in AUDIO_SUFFIXES | {".txt", ".json"}:
                continue
            if row and row[ID_COLUMN] != key:
                yield row, member.offset
                row = {}
            row[ID_COLUMN] = key
            content = archive.extractfile(member)
            assert content is not None  # a regular file has one
            self._add(row, member.name, suffix, content.read())
        if row:
            yield row, None

    def _add(self, row: Row, name: str, suffix: str, data: bytes) -> None:
        if suffix == ".txt":
            row[TEXT_COLUMN] = data.decode("utf-8", errors="replace").strip()
        elif suffix == ".json":
            for field, value in _json_fields(data).items():
                if field not in (ID_COLUMN, self.audio_column, PROBLEMS_COLUMN):
                    row.setdefault(field, value)
        elif self.audio_column in row:
            row[self.audio_column] = None
            if self.schema is None:  # this is the first block, so all rows may have two
                raise InputError(
                    f"{strip_query(self.path)!r} has two recordings called {row[ID_COLUMN]!r}, the second is "
                    f"{name!r}: what stands before a member's first dot must be its own"
                )
        else:
            row[self.audio_column] = {"bytes": data, "path": posixpath.basename(name)}


def _members(file: ByteFile, start: int) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the files of an archive from the position of a member on, keeping none in memory.

    ``TarFile`` itself treats a damaged header as the end, and would silently leave out the rest.
    """
    bounded = _BoundedFile(file)
    bounded.seek(start)
    with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
        position = start
        while True:
            bounded.seek(position)
            try:
                member = tarfile.TarInfo.fromtarfile(archive)
            except tarfile.HeaderError:
                bounded.seek(position)
                block = bounded.read(tarfile.BLOCKSIZE)
                if any(block):
                    raise
                if len(block) < tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("the empty block at its end is missing") from None
                return
            if archive.offset <= position:
                raise tarfile.ReadError("a member of negative size")
            position = archive.offset
            if member.isreg() and not member.issparse():  # a sparse one of a few bytes can be a terabyte
                if member.offset_data + member.size > bounded.size:
                    raise tarfile.ReadError("a member is larger than the archive")
                yield archive, member


class _BoundedFile:
    """A file that is never asked for more bytes than it has, whatever its headers promise."""

    def __init__(self, file: ByteFile):
        self._file = file
        self.tell, self.seek = file.tell, file.seek
        self.size = file.seek(0, os.SEEK_END)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left)) or b""


def _split_name(name: str) -> tuple[str, str]:
    """Return the name of the row (up to the first dot) and the suffix, which is empty for hidden files."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem = file.partition(".")[0]
    return posixpath.join(folder, stem), posixpath.splitext(file)[1].lower() if stem else ""


def _json_fields(data: bytes) -> Row:
    """Return the fields of a JSON object; a damaged one has none, so that its row is skipped later."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _group_rows(rows: Iterable[tuple[Row, int | None]]) -> Iterator[tuple[list[Row], int | None]]:
    """Group rows into blocks."""
    block: list[Row] = []
    num_bytes = 0
    for row, after in rows:
        block.append(row)
        num_bytes += sum(len(value["bytes"]) for value in row.values() if _is_recording(value))
        if len(block) == BLOCK_ROWS or num_bytes >= BLOCK_BYTES or after is None:
            yield block, after
            block, num_bytes = [], 0


def _is_recording(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _schema(rows: Sequence[Row], audio_column: str) -> "pyarrow.Schema":
    """Return the schema of these rows; mixed values become JSON text."""
    import pyarrow

    names = dict.fromkeys(name for row in rows for name in row) | {audio_column: None}
    fields = {name: _type([row.get(name) for row in rows]) for name in names}
    fields[audio_column] = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    return pyarrow.schema(fields)


def _type(values: list[Any]) -> "pyarrow.DataType":
    import pyarrow

    if any(isinstance(value, (list, dict)) and is_deep(value) for value in values):
        return pyarrow.string()
    try:
        found = pyarrow.infer_type(values)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
        return pyarrow.string()
    return pyarrow.string() if found == pyarrow.null() else found


def _table(rows: Sequence[Row], schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Make a table of rows; values that do not fit their columns are noted in a column of problems."""
    import pyarrow

    problems = list[dict[str, str]]({} for _ in rows)
    columns = [
        fitted_column([row.get(field.name) for row in rows], field.type, field.name, problems)
        for field in schema
    ]
    table = pyarrow.Table.from_arrays(columns, schema=schema)
    return table.append_column(PROBLEMS_COLUMN, problems_array(problems)) if any(problems) else table
