"""Local sources that list recordings by path: folders of audio, and JSONL or CSV manifests.

``datasets`` has an AudioFolder of its own, but it insists on torchcodec even where nothing is
decoded, and copies everything through its cache. Reading the list ourselves needs neither.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core import InputError
from flax_distil.data.speech_data import DURATION_COLUMN

if TYPE_CHECKING:
    import datasets

AUDIO_SUFFIXES = frozenset(
    ".aac .aif .aiff .flac .g722 .m4a .mka .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()  # noqa: SIM905
)
"""File names that a folder of audio is searched for; decoding does not depend on them."""

PATH_COLUMNS = ("audio", "audio_filepath", "file_name", "path", "file")
"""Names under which manifests in the wild keep the path of a recording, in order of preference."""

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

SPLIT_FOLDERS = frozenset(
    ("train", "training", "dev", "val", "valid", "validation", "test", "testing", "eval", "evaluation")
)
"""Folders directly below an audio folder that are taken for splits."""

Row = dict[str, Any]


def read_manifest(path: Path, *, audio_column: str) -> dict[str, "datasets.Dataset"]:
    """Read a JSONL or CSV file with one recording per row; paths are relative to the file.

    Args:
        path: The file. Its path column is ``audio_column`` or one of :data:`PATH_COLUMNS`.
        audio_column: Name of the audio column in the result.

    Returns:
        One split, ``train``, as ``datasets`` calls what is not split.

    Raises:
        InputError: if a line is not a JSON object, or no column holds paths.
    """
    rows = read_rows(path)
    return {"train": _table(_with_audio(rows, path, audio_column), origin=str(path))}


def read_audio_folder(folder: Path, *, audio_column: str) -> dict[str, "datasets.Dataset"]:
    """Read a folder of recordings, with their texts if it holds ``metadata.jsonl``, ``.csv`` or ``.parquet``.

    Metadata files may lie at any depth; their ``file_name`` is relative to themselves. Without
    any, every recording below the folder is a row without text. Recordings below a folder
    called ``train``, ``validation``, ``test`` or the like belong to the split of that name.

    Args:
        folder: The folder.
        audio_column: Name of the audio column in the result.

    Returns:
        Split name to rows; ``train`` alone if the folder has no splits.

    Raises:
        InputError: if a metadata file cannot be read or has no column of paths.
    """
    folder = folder.absolute()
    rows: list[Row] = []
    metadata = _metadata_files(folder)
    for path in metadata:
        rows += _with_audio(read_rows(path), path, audio_column)
    if not metadata:
        rows = [{audio_column: str(path)} for path in sorted(audio_files(folder))]
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(_split_of(row[audio_column], folder), []).append(row)
    return {name: _table(members, origin=str(folder)) for name, members in splits.items()}


def _metadata_files(folder: Path) -> list[Path]:
    """Return one metadata file per folder: copies in another format would list every recording twice."""
    first_of_folder: dict[Path, Path] = {}
    for name in METADATA_NAMES:
        for path in folder.rglob(name):
            first_of_folder.setdefault(path.parent, path)
    return sorted(first_of_folder.values())


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the recordings below a folder, in no particular order."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a JSONL, CSV, TSV or Parquet file.

    Raises:
        InputError: if the file is damaged; the line is named.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8-sig", newline="") as file:
        if suffix in {".csv", ".tsv"}:
            return _csv_rows(file, delimiter="\t" if suffix == ".tsv" else ",")
        return [
            _json_row(line, f"{path}, line {number}") for number, line in enumerate(file, 1) if line.strip()
        ]


def _csv_rows(file: Iterable[str], *, delimiter: str) -> list[Row]:
    """CSV has no types: everything stays text ("007" is not 7), except durations."""
    rows: list[Row] = [dict(row) for row in csv.DictReader(file, delimiter=delimiter)]
    for row in rows:
        if row.get(DURATION_COLUMN) is not None:
            row[DURATION_COLUMN] = float(row[DURATION_COLUMN]) if row[DURATION_COLUMN].strip() else None
    return rows


def _json_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}): expected one object per line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row


def _with_audio(rows: Sequence[Row], origin: Path, audio_column: str) -> list[Row]:
    """Replace the column of relative paths by a column of absolute ones, called ``audio_column``."""
    columns = dict.fromkeys(name for row in rows for name in row)
    path_column = next((name for name in (audio_column, *PATH_COLUMNS) if name in columns), None)
    if path_column is None:
        found = ", ".join(columns) or "none"
        raise InputError(
            f"{origin} has no column of audio paths (columns: {found}): "
            f"call it {audio_column!r} or one of {', '.join(PATH_COLUMNS)}"
        )
    others = [name for name in columns if name not in (path_column, audio_column)]
    return [
        {audio_column: _absolute(row.get(path_column), origin), **{name: row.get(name) for name in others}}
        for row in rows
    ]


def _absolute(value: Any, origin: Path) -> str | None:
    """Resolve a path against its manifest; a missing one stays None, to be skipped and listed later."""
    if isinstance(value, Mapping):
        value = value.get("path")
    if value is None or value == "":
        return None
    return str(origin.absolute().parent / str(value))


def _split_of(path: str | None, folder: Path) -> str:
    if path is None:
        return "train"
    try:
        first = Path(path).relative_to(folder).parts[0]
    except ValueError:
        return "train"
    return first if first.lower() in SPLIT_FOLDERS else "train"


def _table(rows: Sequence[Row], *, origin: str) -> "datasets.Dataset":
    """Make a table of rows whose keys may differ.

    Raises:
        InputError: if a column mixes types.
    """
    import datasets
    import pyarrow

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        try:
            columns[name] = pyarrow.array([row.get(name) for row in rows])
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise InputError(f"{origin}: column {name!r} mixes types ({error})") from error
    return datasets.Dataset(pyarrow.table(columns))
