"""Write Parquet files of recordings completely or not at all; equal rows give equal bytes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.shards.shard import BLOCK_ROWS
from flax_distil.storage.paths import AnyPath, publish

if TYPE_CHECKING:
    import datasets
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that was written.

    Attributes:
        bytes: Size of the file.
        sha256: Digest of the file, as the Hub computes it.
    """

    bytes: int
    sha256: str


def shard_features(data: SpeechDataset, added: Mapping[str, Any]) -> "datasets.Features":
    """Return the columns of a shard as ``datasets`` and the Hub's viewer understand them.

    Args:
        data: Data set with the columns of the source.
        added: Features of further columns, which replace columns of the same name.
    """
    import datasets

    features = dict(data.table.features)
    return datasets.Features({**features, data.audio_column: datasets.Audio(), **added})


def shard_table(
    data: SpeechDataset,
    rows: Sequence[int],
    *,
    audio: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[Any]],
    features: "datasets.Features",
) -> "pyarrow.Table":
    """Return the table of a shard.

    Args:
        data: The source.
        rows: For each row of the table, the number of the source row from which its other columns are copied.
        audio: ``{"bytes", "path"}`` of each row.
        columns: Values of the columns that the source does not have, by name.
        features: The result of :func:`shard_features`.

    Raises:
        InputError: If the source lacks a column of the features.
    """
    import pyarrow

    schema = features.arrow_schema
    copied = data.without_audio().table.with_format("arrow")[list(rows)]
    given = {**columns, data.audio_column: [dict(value) for value in audio]}
    arrays = []
    for field in schema:
        if field.name in given:
            arrays.append(pyarrow.chunked_array([pyarrow.array(given[field.name], field.type)]))
            continue
        try:
            arrays.append(copied[field.name].cast(field.type))
        except (KeyError, pyarrow.ArrowException) as error:
            raise InputError(
                f"the files of data set {data.name!r} differ in column {field.name!r}: give all of them "
                f"one of type {field.type}, or leave it out"
            ) from error
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def write_shard(table: "pyarrow.Table", path: AnyPath, *, scratch: Path) -> WrittenFile:
    """Write a Parquet file, which gets its name when it is complete.

    Args:
        table: The rows.
        path: Path of the file, in an existing folder, or its address in a bucket.
        scratch: Path of a temporary file, for a local file in the same file system; removed afterwards.

    Raises:
        OSError: If it cannot be written; an existing file at ``path`` then does not change.
        StorageError: If it cannot be written to the bucket.
    """
    import pyarrow.parquet

    try:
        with scratch.open("wb") as file:
            # Row groups have one block each, so that no reader holds more than one block.
            pyarrow.parquet.write_table(table, file, row_group_size=BLOCK_ROWS, write_page_index=True)
        written = _describe(scratch)
        publish(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return written


def _describe(path: Path) -> WrittenFile:
    with path.open("rb") as file:
        return WrittenFile(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
