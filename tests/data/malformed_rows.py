"""Small data sets of every format with values that no reader should trust, drawn by a seed."""

import csv
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import soundfile

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MalformedSource:
    """One data set.

    Attributes:
        kind: its format, such as ``jsonl`` or ``metadata.csv``.
        number: which of its kind.
        path: a file or folder, there until the next one is asked for.
    """

    kind: str
    number: int
    path: Path


def malformed_rows(seed: int, count: int, *, kinds: Sequence[str] = ()) -> Iterator[MalformedSource]:
    """Yield data sets, one format after the other, each in a folder of its own that goes with the next one.

    Every one has a good row somewhere unless its damage is of the whole file; recordings are of 0.2 s.

    Args:
        seed: decides on everything.
        count: how many.
        kinds: the formats, by default all.
    """
    kinds = kinds or list(WRITERS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{seed} {number}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "corpus"
            folder.mkdir()
            soundfile.write(folder / "good.wav", np.sin(np.arange(3200) / 20) * 0.1, 16_000)
            yield MalformedSource(kind=kind, number=number, path=WRITERS[kind](folder, draw))


def deep(depth: int) -> list[Any]:
    """Return a list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda draw: None,
    lambda draw: draw.choice([True, False]),
    lambda draw: draw.choice([0, -1, 7, 2**31, 2**63, -(2**64), 10**30]),
    lambda draw: draw.choice([0.0, -3.5, 1e-12, 29.99, 1e300, float("nan"), float("inf"), float("-inf")]),
    lambda draw: draw.choice(["", " ", "abc", "-1", "nan", "1e999", "12,5", "0x10", "№ 5", "\u202ereversed"]),
    lambda draw: draw.choice(
        [
            "a\0b.wav",
            "good.wav\n",
            "../good.wav",
            "/dev/null",
            "good.wav#t=5,1",
            "#t=,",
            "/etc/passwd",
            "file:///etc/passwd",
            "\x1b[2J.wav",
            "C:\\a.wav",
            "..\\good.wav",
            "=cmd|a",
            "a/" * 3000,
            ".",
        ]
    ),
    lambda draw: draw.choice(
        ["x" * 100_000, "<|9.00|> a<|1.00|>", "<|0.00|> a<|31.00|>", "<|startoftranscript|>"]
    ),
    lambda draw: draw.choice(["\ud800", "a\udfffb"]),
    lambda draw: draw.choice([[], [1, 2], ["a", 1], [None], [[], {}], ["good.wav"]]),
    lambda draw: draw.choice([{}, {"a": 1}, {"path": 3}, {"path": ["good.wav"]}, {"bytes": "x"}, {"": None}]),
    lambda draw: deep(draw.choice([10, 70, 400])),
    lambda draw: [{"a": deep(30)}],
)
"""Whatever JSON can hold where something else belongs."""

FIELDS = (
    "audio", "text", "whisper_transcript", "duration", "id", "speaker_id", "offset", "start_time", "end_time",
    "avg_logprob", "no_speech_prob", "wer", "condition_on_prev", "compression_ratio", "extra",
)  # fmt: skip


def good_row(number: int) -> Row:
    return {"audio": "good.wav", "text": f"Row {number}.", "whisper_transcript": f" Row {number}."}


def json_rows(draw: random.Random) -> list[Row]:
    """Return three good rows with one to four values changed, added or taken out."""
    rows = [good_row(number) for number in range(3)]
    for _ in range(draw.randint(1, 4)):
        row, field = draw.choice(rows), draw.choice(FIELDS)
        if draw.random() < 0.1:
            row.pop(field, None)
        else:
            row[field] = draw.choice(VALUES)(draw)
    if draw.random() < 0.2:  # a whole column
        field, value = draw.choice(FIELDS), draw.choice(VALUES)(draw)
        rows = [{**row, field: value} for row in rows]
    return rows


def json_text(draw: random.Random) -> bytes:
    lines = [json.dumps(row).encode() for row in json_rows(draw)]
    if draw.random() < 0.25:
        junk = [
            b"[" * 100_000, b'{"audio": ' + b"9" * 5000 + b"}", b"null", b"[]", b"{", b"\xff\xfe{}", b"\0",
            b'{"audio": NaN}', b'{"audio": "good.wav", "audio": 1}',
            b'{"__problems__": 1, "audio": "good.wav"}',
            b'{"": 1}', b"  \t", b'"text"',
        ]  # fmt: skip
        lines.insert(draw.randrange(4), draw.choice(junk))
    return draw.choice([b"\n", b"\n", b"\r\n"]).join(lines)


def csv_text(draw: random.Random, delimiter: str) -> bytes:
    rows = json_rows(draw)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(draw.choice([names, names, names, names[:-1], [*names, names[0]], [*names, ""]]))
    for row in rows:
        values = [row.get(name) for name in names]
        values += ["more"] * draw.choice([0, 0, 0, 2])
        writer.writerow(values[: draw.choice([None, None, 1])])
    data = text.getvalue().encode(errors="replace")
    return data + draw.choice(
        [b"", b"", b"", b"\0\0,\n", b'"open', b"\xff\n", b'"' + b"z" * 200_000 + b'"\n']
    )


def write_text(name: str, make: Callable[[random.Random], bytes]) -> Callable[[Path, random.Random], Path]:
    def write(folder: Path, draw: random.Random) -> Path:
        (folder / name).write_bytes(make(draw))
        return folder if name.startswith("metadata") else folder / name

    return write


def audio_cells(draw: random.Random, folder: Path) -> list[Any]:
    """Return three cells of a column of recordings, rarely of one type with a recording."""
    good = (folder / "good.wav").read_bytes()
    cells: tuple[list[Any], ...] = (
        [{"bytes": good, "path": "a.wav"}] * 3,
        [{"bytes": good, "path": None}, {"bytes": None, "path": None}, None],
        [
            {"bytes": good[:50], "path": "a.wav"},
            {"bytes": b"", "path": ""},
            {"bytes": good, "path": "b\0.wav"},
        ],
        [
            {"bytes": None, "path": "b\0.wav"},
            {"bytes": None, "path": "gone.wav"},
            {"bytes": good, "path": ""},
        ],
        [{"bytes": good, "path": "a.wav#t=0.05,0.1"}, {"bytes": good, "path": "a.wav#t=9,10"}, None],
        [{"bytes": "text", "path": "a.wav"}] * 3,
        [{"bytes": good, "path": 5}] * 3,
        [{"array": [0.0, 1.0], "sampling_rate": 16_000}] * 3,
        [{"other": 1}] * 3,
        [good] * 3,
        [str(folder / "good.wav")] * 3,
        [1, 2, 3],
        [True] * 3,
        [[0.0, 0.1]] * 3,
        [None] * 3,
        [[good]] * 3,
    )
    return draw.choice((*cells[:5], *cells))


COLUMNS: tuple[list[Any], ...] = (
    ["Row 0.", None, ""],
    [" Row 0.", "<|5.00|> a<|1.00|>", "x" * 5000],
    [1, 2, None],
    [0.5, float("nan"), -1.0],
    [1e300, float("inf"), 0.0],
    [True, None, False],
    [[1, 2], [], None],
    [["a"], None, [""]],
    [[-5], [10**12], [3]],
    [[[1]], [], None],
    [{"a": 1}, None, {"a": None}],
    [b"\xff\xfe", b"", None],
    [None, None, None],
    ["1.5", "abc", "-3"],
)


def arrow_table(draw: random.Random, folder: Path) -> pyarrow.Table:
    columns = {
        "audio": audio_cells(draw, folder),
        "text": [f"Row {number}." for number in range(3)],
        "whisper_transcript": [f" Row {number}." for number in range(3)],
    }
    for _ in range(draw.randint(0, 3)):
        columns[draw.choice(FIELDS[1:])] = draw.choice(COLUMNS)
    table = pyarrow.table(columns)
    if draw.random() < 0.2:
        name = draw.choice(table.column_names[1:])
        table = _retyped(draw, table, name)
    if draw.random() < 0.05:
        table = table.drop_columns([draw.choice(table.column_names)])
    return table.slice(0, draw.choice([3, 3, 3, 3, 0]))


def _retyped(draw: random.Random, table: pyarrow.Table, name: str) -> pyarrow.Table:
    """Give a column one of the rarer types, if its values allow."""
    rare = (
        pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(), pyarrow.float16(), pyarrow.float32(),
        pyarrow.decimal128(20, 3), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.int8(),
        pyarrow.duration("s"), pyarrow.timestamp("ms"), pyarrow.large_list(pyarrow.int64()), pyarrow.uint64(),
    )  # fmt: skip
    try:
        column = table.column(name).cast(draw.choice(rare))
    except (pyarrow.ArrowException, ValueError):
        return table
    return table.set_column(table.column_names.index(name), name, column)


def write_parquet(folder: Path, draw: random.Random) -> Path:
    path = folder / "rows.parquet"
    try:
        pyarrow.parquet.write_table(arrow_table(draw, folder), path)
    except pyarrow.ArrowException:  # a type that Parquet has not
        path.write_bytes(b"PAR1")
    return _damaged(path, draw)


def write_arrow(folder: Path, draw: random.Random) -> Path:
    path, table = folder / "rows.arrow", arrow_table(draw, folder)
    opened = draw.choice([pyarrow.ipc.new_stream, pyarrow.ipc.new_file])
    with opened(str(path), table.schema) as writer:
        writer.write_table(table)
    return _damaged(path, draw)


def _damaged(path: Path, draw: random.Random) -> Path:
    """Cut the file or turn a byte of it round, now and then."""
    data = bytearray(path.read_bytes())
    what = draw.random()
    if what < 0.1:
        path.write_bytes(data[: draw.randrange(len(data))])
    elif what < 0.2:
        for _ in range(3):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
    return path


def write_tar(folder: Path, draw: random.Random) -> Path:
    path, good = folder / "rows.tar", (folder / "good.wav").read_bytes()
    (folder / "good.wav").unlink()
    with tarfile.open(path, "w") as archive:
        for number, row in enumerate(json_rows(draw)):
            row.pop("audio", None)
            name = draw.choice([*[f"{number}"] * len(TAR_NAMES), *TAR_NAMES])
            members = {"wav": draw.choice([good, good, good[:60], b""]), "json": json.dumps(row).encode()}
            if draw.random() < 0.3:
                members["txt"] = draw.choice([b"text", b"\xff\xfe", b"", b"\0"])
            if draw.random() < 0.2:
                members["json"] = draw.choice(
                    [b"[" * 100_000, b"7", b"{", b"\xff", b'{"a": ' + b"9" * 5000 + b"}"]
                )
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            if draw.random() < 0.3:
                archive.fileobj.write(draw.choice(TAR_MEMBERS)(f"{name}.wav"))
                archive.offset = archive.fileobj.tell()
    return _damaged(path, draw)


def tar_member(name: str, kind: bytes, *, link: str = "", size: int = 0, data: bytes = b"") -> bytes:
    """Return a member whose header may promise more bytes than follow, in whole blocks."""
    info = tarfile.TarInfo(name[:90])
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def pax_member(name: str, **fields: str) -> bytes:
    """Return a member of 0 bytes behind a header that says something else of it."""
    pairs = [f" {field.replace('__', '.')}={value}\n".encode() for field, value in fields.items()]
    lines = b"".join(str(len(pair) + len(str(len(pair) + 2))).encode() + pair for pair in pairs)
    head = tar_member("pax", tarfile.XHDTYPE, size=len(lines), data=lines)
    return head + tar_member(name, tarfile.REGTYPE)


def sparse_member(name: str) -> bytes:
    """Return a few bytes that stand for a file of a terabyte of zeros."""
    return pax_member(
        name, GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name=name,
        GNU__sparse__realsize=str(2**40),
    ) + b"0\n".ljust(tarfile.BLOCKSIZE, b"\0")  # fmt: skip


def old_sparse_member(name: str) -> bytes:
    """Return the same in the older form, with an empty map of its parts."""
    head = bytearray(tar_member(name, tarfile.GNUTYPE_SPARSE))
    head[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    head[148:156] = f"{256 + sum(head[:148]) + sum(head[156:512]):06o}\0 ".encode()
    return bytes(head)


TAR_NAMES = (
    "same", "", "a/../b", "ä" * 120, "/etc/passwd", "../../x", "..", ".", "a\\..\\b", "C:\\x", "CON",
    "x" * 300, "\x1b[31mred", "a\nb", "a//b", "./a", "~", "=1+1", "a" + "/a" * 500,
)  # fmt: skip

TAR_MEMBERS: tuple[Callable[[str], bytes], ...] = (
    lambda name: tar_member(name, tarfile.SYMTYPE, link="/etc/passwd"),
    lambda name: tar_member(name, tarfile.LNKTYPE, link="../../../etc/passwd"),
    lambda name: tar_member(name, tarfile.FIFOTYPE),
    lambda name: tar_member(name, tarfile.CHRTYPE),
    lambda name: tar_member(name, tarfile.DIRTYPE),
    lambda name: tar_member(name, b"?"),
    lambda name: tar_member(name, tarfile.REGTYPE, size=2**40),
    lambda name: tar_member(name, tarfile.GNUTYPE_LONGNAME, size=2**33),
    lambda name: tar_member(name, tarfile.XHDTYPE, size=2**33),
    lambda name: tar_member(name, tarfile.GNUTYPE_LONGNAME, size=600, data=b"a/" * 256),
    lambda name: pax_member(name, size="-1024"),
    lambda name: pax_member(name, size=str(2**62)),
    lambda name: pax_member(name, size="x", mtime="nan"),
    lambda name: pax_member(name, path="../" * 200 + "etc/x.wav", hdrcharset="BINARY"),
    sparse_member,
    old_sparse_member,
)  # fmt: skip
"""Members that are not files of an honest size."""


def write_saved(folder: Path, draw: random.Random) -> Path:
    """Write a folder as ``save_to_disk`` does; its small files may be damaged."""
    import datasets

    saved = folder / "saved"
    try:
        datasets.Dataset(arrow_table(draw, folder)).save_to_disk(saved)
    except (ValueError, pyarrow.ArrowException, TypeError, NotImplementedError):
        datasets.Dataset(pyarrow.table({"audio": ["a.wav"], "text": [["a"]]})).save_to_disk(saved)
    if draw.random() < 0.4:
        file = saved / draw.choice(["state.json", "dataset_info.json"])
        file.write_bytes(
            draw.choice([b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"_data_files": 3}', b"\xff"])
        )
    return saved


WRITERS: dict[str, Callable[[Path, random.Random], Path]] = {
    "jsonl": write_text("rows.jsonl", json_text),
    "csv": write_text("rows.csv", lambda draw: csv_text(draw, ",")),
    "parquet": write_parquet,
    "arrow": write_arrow,
    "tar": write_tar,
    "metadata.jsonl": write_text("metadata.jsonl", json_text),
    "tsv": write_text("rows.tsv", lambda draw: csv_text(draw, "\t")),
    "saved": write_saved,
    "metadata.csv": write_text("metadata.csv", lambda draw: csv_text(draw, ",")),
}
