"""Read data sets that list recordings by path: folders of audio, and JSONL or CSV manifests, local or remote.

``datasets`` has an AudioFolder, but it needs torchcodec even if nothing is decoded, and copies everything to
its cache. Reading the list here needs neither.
"""

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import DURATION_COLUMN
from flax_distil.data.fragments import fragment_columns, row_fragment, seconds
from flax_distil.data.shards.row_columns import EVERY_ROLE, PROBLEMS_COLUMN, misfit, row_columns
from flax_distil.data.sources.file_kinds import AUDIO_SUFFIXES, suffix_of
from flax_distil.storage.remote_files import is_remote, open_file
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, damaged_error, strip_query
from flax_distil.storage.transports import protocol_of

if TYPE_CHECKING:
    import datasets

PATH_COLUMNS = ("audio", "audio_filepath", "file_name", "path", "file")
"""Columns in which published manifests have the path of a recording, in order of preference."""

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words in names of files and folders that identify splits, with the names of the splits in ``datasets``."""

Row = dict[str, Any]


def read_manifest(
    path: str, *, audio_column: str, policy: RetryPolicy = DEFAULT_POLICY
) -> "datasets.Dataset":
    """Read a JSONL or CSV file with one recording per row; paths are relative to the file.

    Args:
        path: Path or address of the file. Its column of paths is ``audio_column`` or one of
            :data:`PATH_COLUMNS`.
        audio_column: Name of the audio column in the result.
        policy: Policy for repeating failed requests.

    Raises:
        InputError: If a line is not a JSON object, or no column holds paths.
    """
    return _table(_with_audio(read_rows(path, policy), path, audio_column))


def read_audio_folder(folder: Path, *, audio_column: str) -> dict[str, "datasets.Dataset"]:
    """Read a local folder of recordings, as :func:`read_audio_files` does."""
    folder = folder.absolute()
    files = [str(path) for path in folder.rglob("*") if path.is_file()]
    return read_audio_files(files, str(folder), audio_column=audio_column)


def read_audio_files(
    files: Sequence[str], folder: str, *, audio_column: str, policy: RetryPolicy = DEFAULT_POLICY
) -> dict[str, "datasets.Dataset"]:
    """Read a list of recordings, with texts if there is a ``metadata.jsonl``, ``.csv`` or ``.parquet``.

    Metadata files may be in any subfolder; their ``file_name`` is relative to the folder of the metadata
    file. Without metadata, every recording is a row without text. Recordings below a folder with a name such
    as ``train``, ``validation`` or ``test`` belong to that split.

    Args:
        files: Absolute paths or addresses, not only of recordings.
        folder: Folder that contains all of them.
        audio_column: Name of the audio column in the result.
        policy: Policy for repeating failed requests.

    Returns:
        Rows of each split by its name; only ``train`` if the folder has no splits.

    Raises:
        InputError: If a metadata file cannot be read or has no column of paths.
    """
    rows: list[Row] = []
    metadata = _metadata_files(files)
    for path in metadata:
        rows += _with_audio(read_rows(path, policy), path, audio_column)
    if not metadata:
        rows = [{audio_column: path} for path in sorted(files) if suffix_of(path) in AUDIO_SUFFIXES]
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(_split_of(row[audio_column], folder), []).append(row)
    return {name: _table(members) for name, members in splits.items()}


def _metadata_files(files: Sequence[str]) -> list[str]:
    """Return one metadata file per folder; a copy in another format would list every recording twice."""
    chosen: dict[str, str] = {}
    for name in METADATA_NAMES:
        for path in files:
            if posixpath.basename(path) == name:
                chosen.setdefault(posixpath.dirname(path), path)
    return sorted(chosen.values())


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the recordings below a folder, in no particular order."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def read_rows(path: str, policy: RetryPolicy) -> list[Row]:
    """Read the rows of a JSONL, CSV, TSV or Parquet file.

    Raises:
        InputError: If the file is damaged; the message names the line.
    """
    suffix = suffix_of(path)
    with open_file(path, policy) as binary:
        if suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            try:
                rows: list[Row] = pyarrow.parquet.read_table(binary).to_pylist()
            except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
                raise damaged_error(path, error) from error
            return rows
        buffered = binary if isinstance(binary, io.BufferedIOBase) else io.BufferedReader(binary)
        with io.TextIOWrapper(cast(io.BufferedReader, buffered), encoding="utf-8-sig", newline="") as file:
            try:
                if suffix in {".csv", ".tsv"}:
                    return _csv_rows(file, delimiter="\t" if suffix == ".tsv" else ",")
                lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
                return [_json_row(line, f"{strip_query(path)}, line {number}") for number, line in lines]
            except (UnicodeDecodeError, csv.Error) as error:
                raise damaged_error(path, error) from error


def _csv_rows(file: Iterable[str], *, delimiter: str) -> list[Row]:
    """Read CSV, which has no types; all values except durations stay texts ("007" is not 7)."""
    rows: list[Row] = []
    for row in csv.DictReader(file, delimiter=delimiter):
        if (extra := row.pop(cast(str, None), None)) is not None:
            many = f"the line has {len(row) + len(extra)} values for {len(row)} columns"
            row = {**row, PROBLEMS_COLUMN: {EVERY_ROLE: many}}
        if row.get(DURATION_COLUMN) is not None:
            text = row[DURATION_COLUMN].strip()
            row[DURATION_COLUMN] = (text if seconds(text) is None else float(text)) if text else None
        rows.append(row)
    return rows


def _json_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # a ValueError also for numbers with thousands of digits
        raise InputError(f"{where}: not JSON ({error}): expected one object per line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
    row.pop(PROBLEMS_COLUMN, None)  # this name is reserved
    return row


def _with_audio(rows: Sequence[Row], origin: str, audio_column: str) -> list[Row]:
    """Replace the column of relative paths by a column of absolute paths with the name ``audio_column``.

    If columns say that a recording is a part of its file, the path ends with a media fragment.
    """
    columns = dict.fromkeys(name for row in rows for name in row if name != PROBLEMS_COLUMN)
    path_column = next((name for name in (audio_column, *PATH_COLUMNS) if name in columns), None)
    if path_column is None:
        found = ", ".join(columns) or "none"
        raise InputError(
            f"{strip_query(origin)} has no column of audio paths (columns: {found}): "
            f"call it {audio_column!r} or one of {', '.join(PATH_COLUMNS)}"
        )
    start, end = fragment_columns(list(columns), strip_query(origin))
    others = [name for name in columns if name not in (path_column, audio_column)]
    changed = []
    for row in rows:
        values = {name: row.get(name) for name in others}
        problems = dict(row.get(PROBLEMS_COLUMN) or {})
        path = None
        try:
            path = _absolute(row.get(path_column), origin, path_column)
            fragment = row_fragment(row, start, end, DURATION_COLUMN)
            if path is not None and fragment is not None:
                path, values[DURATION_COLUMN] = f"{path}{fragment}", fragment.seconds
        except ValueError as error:
            problems[EVERY_ROLE] = str(error)
        changed.append({audio_column: path, **values, **({PROBLEMS_COLUMN: problems} if problems else {})})
    return changed


def _absolute(value: Any, origin: str, column: str) -> str | None:
    """Resolve a path relative to its manifest; a missing path stays None, and its row is skipped later.

    Raises:
        ValueError: If the value is not a path; the message is a sentence.
    """
    if isinstance(value, Mapping):
        value = value.get("path")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{misfit(column, value)}, not a path")
    if "\0" in value:
        raise ValueError(f"column {column!r} holds {value[:40]!r}, and no path has a NUL character in it")
    if is_remote(value):
        return value
    if not is_remote(origin):
        return os.path.join(os.path.dirname(os.path.abspath(origin)), value)
    protocol, _, location = origin.partition("?")[0].partition("://")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(location), value))
    return f"{protocol}://{quote(path, safe='/:%@') if protocol_of(origin).startswith('http') else path}"


def _split_of(path: str | None, folder: str) -> str:
    inside = "" if path is None else path.removeprefix(folder.rstrip("/") + "/")
    first = inside.partition("/")[0]
    return first if inside != path and first.lower() in SPLIT_WORDS else "train"


def _table(rows: Sequence[Row]) -> "datasets.Dataset":
    """Make a table from rows whose keys and types may differ."""
    import datasets
    import pyarrow

    names = dict.fromkeys(name for row in rows for name in row if name != PROBLEMS_COLUMN)
    return datasets.Dataset(pyarrow.table(row_columns(rows, list(names))))
