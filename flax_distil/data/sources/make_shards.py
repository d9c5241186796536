"""Make shards from the files of a data set."""

import dataclasses
import posixpath
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.shards.arrow_shard import ArrowShard
from flax_distil.data.shards.parquet_shard import ParquetShard
from flax_distil.data.shards.row_columns import PROBLEMS_COLUMN
from flax_distil.data.shards.shard import Shard
from flax_distil.data.shards.table_shard import TableShard
from flax_distil.data.shards.tar_shard import TarShard
from flax_distil.data.sources.data_files import DataFile
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.file_kinds import KINDS, MANIFEST_SUFFIXES, suffix_of
from flax_distil.data.sources.file_sources import read_manifest
from flax_distil.storage.retries import strip_query

if TYPE_CHECKING:
    import pyarrow


def make_shards(files: Sequence[DataFile], spec: DatasetSpec, *, single_name: str) -> tuple[Shard, ...]:
    """Return one shard per file; the first tar file is read to find the columns.

    Args:
        files: At least one file of the data set.
        spec: The data set; its short name begins the names of the shards.
        single_name: Name of the shard if there is only one.

    Raises:
        InputError: If a file is of an unknown kind, or cannot be read.
    """
    names = [single_name]
    if len(files) > 1:
        names = [f"{spec.short_name}/{part}" for part in _distinct_names(files)]
    shards: list[Shard] = []
    schema = None
    for file, name in zip(files, names, strict=True):
        shard = _shard(file, name, spec)
        if isinstance(shard, TarShard):
            schema = schema or _first_schema(shard)
            shard = dataclasses.replace(shard, schema=schema)
        shards.append(shard)
    return tuple(shards)


def _shard(file: DataFile, name: str, spec: DatasetSpec) -> Shard:
    path, policy = file.origin, spec.policy
    suffix = suffix_of(path)
    if file.listed is not None or suffix in MANIFEST_SUFFIXES:
        table = file.listed
        if table is None:
            table = read_manifest(path, audio_column=spec.audio_column, policy=policy)
        return TableShard(name=name, table=table.with_format("arrow")[:])
    if suffix == ".parquet":
        return ParquetShard(name=name, path=path, policy=policy)
    if suffix == ".arrow":
        return ArrowShard(name=name, path=path, policy=policy)
    if suffix in (".tar", ".tgz") or strip_query(path).lower().endswith(".tar.gz"):  # refused when read
        return TarShard(name=name, path=path, audio_column=spec.audio_column, policy=policy)
    raise InputError(f"cannot read {strip_query(path)!r} as a data set: expected {KINDS}")


def _first_schema(shard: TarShard) -> "pyarrow.Schema | None":
    with closing(shard.blocks()) as blocks:
        table = next((block.table for block in blocks), None)
    if table is None:
        return None
    return table.drop_columns([name for name in table.column_names if name == PROBLEMS_COLUMN]).schema


def _distinct_names(files: Sequence[DataFile]) -> list[str]:
    """Return a short, unique name for each file: its stem, its name, or its path."""
    paths = [strip_query(file.origin).replace("://", ":/") for file in files]
    shared = len(posixpath.commonpath(paths))
    names = [posixpath.basename(path) for path in paths]
    stems = [posixpath.splitext(name)[0] for name in names]
    inside = [path[shared:].lstrip("/") for path in paths]
    return next(found for found in (stems, names, inside) if len({*found}) == len(found) or found is inside)
