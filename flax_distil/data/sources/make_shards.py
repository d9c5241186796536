"""Pieces of a source become shards to stream from."""

import dataclasses
import posixpath
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.remote.retries import RetryPolicy, shown
from flax_distil.data.shards import Shard
from flax_distil.data.sources.arrow_shards import ArrowShard
from flax_distil.data.sources.data_files import KINDS, MANIFEST_SUFFIXES, DataFile
from flax_distil.data.sources.file_sources import read_manifest, suffix_of
from flax_distil.data.sources.parquet_shards import ParquetShard
from flax_distil.data.sources.row_columns import PROBLEMS_COLUMN
from flax_distil.data.sources.table_shards import TableShard
from flax_distil.data.sources.tar_shards import TarShard

if TYPE_CHECKING:
    import pyarrow


def make_shards(
    files: Sequence[DataFile], *, name: str, single_name: str, audio_column: str, policy: RetryPolicy
) -> tuple[Shard, ...]:
    """Return one shard per file; of tar files, the first is read for its columns.

    Args:
        files: At least one.
        name: Short name of the source; with what tells the files apart, the shards' names.
        single_name: The shard's name if there is but one.
        audio_column: Column of recordings.
        policy: When to ask a server again.

    Raises:
        InputError: if a file is of no known kind, or cannot be read.
    """
    names = [single_name] if len(files) == 1 else [f"{name}/{part}" for part in _distinct(files)]
    shards: list[Shard] = []
    schema = None
    for file, shard_name in zip(files, names, strict=True):
        shard = _shard(file, shard_name, audio_column, policy)
        if isinstance(shard, TarShard):
            schema = schema or _first_schema(shard)
            shard = dataclasses.replace(shard, schema=schema)
        shards.append(shard)
    return tuple(shards)


def _shard(file: DataFile, name: str, audio_column: str, policy: RetryPolicy) -> Shard:
    suffix = suffix_of(file.origin)
    if file.listed is not None:
        return TableShard(name=name, table=file.listed.with_format("arrow")[:])
    if suffix in MANIFEST_SUFFIXES:
        table = read_manifest(file.origin, audio_column=audio_column, policy=policy)
        return TableShard(name=name, table=table.with_format("arrow")[:])
    if suffix == ".parquet":
        return ParquetShard(name=name, path=file.origin, policy=policy)
    if suffix == ".arrow":
        return ArrowShard(name=name, path=file.origin, policy=policy)
    if suffix in (".tar", ".tgz") or shown(file.origin).lower().endswith(".tar.gz"):  # it says why not
        return TarShard(name=name, path=file.origin, audio_column=audio_column, policy=policy)
    raise InputError(f"cannot read {shown(file.origin)!r} as a data set: expected {KINDS}")


def _first_schema(shard: TarShard) -> "pyarrow.Schema | None":
    with closing(shard.blocks()) as blocks:
        table = next((block.table for block in blocks), None)
    if table is None:
        return None
    return table.drop_columns([name for name in table.column_names if name == PROBLEMS_COLUMN]).schema


def _distinct(files: Sequence[DataFile]) -> list[str]:
    """Return a short name for each file: the file's, with what else it takes to tell them apart."""
    paths = [shown(file.origin).replace("://", ":/") for file in files]
    shared = len(posixpath.commonpath(paths))
    names = [posixpath.basename(path) for path in paths]
    stems = [posixpath.splitext(name)[0] for name in names]
    inside = [path[shared:].lstrip("/") for path in paths]
    return next(found for found in (stems, names, inside) if len({*found}) == len(found) or found is inside)
