"""Open the data sets of the Open ASR Leaderboard, from the Hub or from copies on this machine."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.dataset import ID_COLUMN, SpeechDataset
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_tables
from flax_distil.data.tables import to_speech_dataset
from flax_distil.evaluation.leaderboard.sets import LeaderboardSet
from flax_distil.evaluation.streams import EvaluationSet, EvaluationStream, open_streams
from flax_distil.text.leaderboard_normalizer import LeaderboardNormalizer

if TYPE_CHECKING:
    import pyarrow

TEXT_COLUMNS = ("text", "sentence", "normalized_text", "transcript", "transcription")
"""Columns that may hold the references; the first that exists does."""

PARENT_COLUMN, CHUNK_COLUMN, FILE_COLUMN = CHUNK_COLUMNS = ("parent_id", "chunk_index", "file_name")
"""Columns of a set of chunks: the whole recording, the number of the chunk in it, and its file."""

_METADATA_SUFFIXES = (".parquet", ".jsonl", ".csv")


def open_set(data_set: LeaderboardSet, spec: DatasetSpec, *, data_dir: str | None = None) -> EvaluationSet:
    """Open a set, without the rows that the leaderboard leaves out because nothing is said in them.

    Streaming, a set of chunks is a table of their addresses on the Hub.

    Args:
        data_set: The set.
        spec: How data sets are read, whatever its name is.
        data_dir: Folder with copies of the leaderboard's data sets; None for the Hub.

    Raises:
        InputError: If the set cannot be opened, lacks a column, or has no row with a reference.
    """
    if data_set.parent is not None:
        data = _open_chunks(data_set, data_set.parent, spec, data_dir)
    else:
        name, config, split = data_set.dataset, data_set.hub_config, data_set.split
        if data_dir is not None:
            name, config, split = _local_files(data_set, data_dir), None, "train"
        spec = dataclasses.replace(spec, name=name, config_name=config, split=split, text_column=None)
        if spec.streaming:
            return _open_stream(data_set, spec)
        (data,) = load_tables(spec)
        data = dataclasses.replace(data, text_column=_text_column(data.table.column_names, data_set.name))
    is_scored = LeaderboardNormalizer(data_set.language).is_scored
    rows = [row for row, text in enumerate(data.references()) if is_scored(text or "")]
    if not rows:
        raise InputError(f"set {data_set.name!r} of the Open ASR Leaderboard has no row with a reference")
    return dataclasses.replace(data if len(rows) == len(data) else data.select(rows), name=data_set.name)


def _open_stream(data_set: LeaderboardSet, spec: DatasetSpec) -> EvaluationStream:
    (stream,) = open_streams(spec)
    columns = stream.source.first_rows().table.column_names
    source = dataclasses.replace(
        stream.source, name=data_set.name, text_column=_text_column(columns, data_set.name)
    )
    is_scored = LeaderboardNormalizer(data_set.language).is_scored
    return dataclasses.replace(stream, source=source, is_scored=is_scored)


def _text_column(columns: Sequence[str], name: str) -> str:
    for column in TEXT_COLUMNS:
        if column in columns:
            return column
    raise InputError(
        f"set {name!r} has no column of references: expected one of {', '.join(TEXT_COLUMNS)}, got "
        f"{', '.join(columns)}"
    )


def _local_files(data_set: LeaderboardSet, data_dir: str) -> str:
    """Return the pattern of a set's Parquet files below a folder of one repository, or of several."""
    root, config, split = user_path(data_dir), data_set.config, data_set.split
    patterns = (
        f"{config}/{split}-*.parquet", f"{config}/{split}.parquet", f"{config}/{split}/*.parquet",
        f"{data_set.name}/*.parquet", f"{data_set.name}.parquet",
    )  # fmt: skip
    for folder in (root / data_set.dataset.rpartition("/")[2], root):
        for pattern in patterns:
            if next(folder.glob(pattern), None) is not None:
                return str(folder / pattern)
    raise InputError(
        f"leaderboard_data_dir {data_dir!r} has no Parquet files of set {data_set.name!r}: expected "
        f"{patterns[0]} there, or in a folder {data_set.dataset.rpartition('/')[2]}"
    )


def _open_chunks(
    data_set: LeaderboardSet, parent: str, spec: DatasetSpec, data_dir: str | None
) -> SpeechDataset:
    """Open a set of chunks, whose references are those of the recordings that they were cut from."""
    import datasets

    folder = _repository(data_set.dataset, spec, data_dir)
    is_remote = spec.streaming and data_dir is None
    root = f"hf://datasets/{data_set.dataset}" if is_remote else str(folder)
    table = _read_rows(folder, CHUNK_COLUMNS)
    references = _read_rows(_repository(parent, spec, data_dir), (ID_COLUMN,))
    text_column = _text_column(references.column_names, parent)
    texts = dict(
        zip(map(str, references[ID_COLUMN].to_pylist()), references[text_column].to_pylist(), strict=True)
    )
    rows = table.select(CHUNK_COLUMNS).to_pylist()[: spec.max_samples]
    missing = sorted({str(row[PARENT_COLUMN]) for row in rows} - texts.keys())
    if missing:
        raise InputError(
            f"{parent} has no reference of {missing[0]!r}, of which {data_set.dataset} has chunks"
        )
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in CHUNK_COLUMNS}
    columns |= {
        ID_COLUMN: columns[FILE_COLUMN],
        "audio": [f"{root}/audio/{name}" for name in columns[FILE_COLUMN]],
        "text": [texts[str(name)] for name in columns[PARENT_COLUMN]],
    }
    return dataclasses.replace(
        to_speech_dataset(
            datasets.Dataset.from_dict(columns),
            name=data_set.name,
            text_column="text",
            id_prefix=data_set.name,
            local_files=str(folder),
        ),
        policy=spec.policy,
        channel=spec.channel,
    )


def _repository(dataset: str, spec: DatasetSpec, data_dir: str | None) -> Path:
    """Return the folder of a data set's repository: the copy on this machine, or what the Hub has.

    Streaming, the recordings are not downloaded.
    """
    if data_dir is not None:
        folder = user_path(data_dir) / dataset.rpartition("/")[2]
        if not folder.is_dir():
            raise InputError(
                f"leaderboard_data_dir {data_dir!r} has no folder {folder.name}, a copy of {dataset}"
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"*{suffix}" for suffix in _METADATA_SUFFIXES] if spec.streaming else None
        return Path(
            snapshot_download(dataset, repo_type="dataset", cache_dir=spec.cache_dir, allow_patterns=patterns)
        )
    except Exception as error:  # the network has too many ways to fail, of as many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot download data set {dataset!r}: {reason}") from error


def _read_rows(folder: Path, needed: Sequence[str]) -> "pyarrow.Table":
    """Return the rows of the files of a repository that have some columns, without recordings."""
    import pyarrow
    from pyarrow import csv, json, parquet

    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _METADATA_SUFFIXES:
            continue
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
            kept = [name for name in (*CHUNK_COLUMNS, ID_COLUMN, *TEXT_COLUMNS) if name in names]
            table = parquet.read_table(path, columns=kept)
        else:
            table = (json.read_json if path.suffix == ".jsonl" else csv.read_csv)(path)
        if set(needed) <= set(table.column_names):
            found.append(table)
    if not found:
        raise InputError(
            f"{folder} has no {', '.join(_METADATA_SUFFIXES)} file with columns {', '.join(needed)}"
        )
    return pyarrow.concat_tables(found, promote_options="default")
