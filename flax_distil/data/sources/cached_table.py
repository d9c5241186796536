"""Read shards once into the cache of ``datasets``, for formats that ``datasets`` does not read itself."""

import errno
import hashlib
import itertools
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.shards.row_columns import PROBLEMS_COLUMN
from flax_distil.data.shards.shard import Shard
from flax_distil.data.sources.data_files import DataFile
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.storage.remote_files import file_identity

if TYPE_CHECKING:
    import datasets
    import pyarrow


def cached_table(shards: Sequence[Shard], files: Sequence[DataFile], spec: DatasetSpec) -> "datasets.Dataset":
    """Read shards once into the ``datasets`` cache; unchanged files are not read again.

    Args:
        shards: Shards to read.
        files: Files from which the shards were made.
        spec: Data set with its audio column, its cache (None for that of ``datasets``) and its retry policy.

    Raises:
        InputError: If a shard cannot be read, two shards have different columns, or the disk is full.
    """
    import datasets

    digest = hashlib.blake2b(spec.audio_column.encode(), digest_size=16)
    for file in files:
        digest.update(f"{file.origin} {file_identity(file.origin, spec.policy)}\0".encode())
    folder = Path(spec.cache_dir or datasets.config.HF_DATASETS_CACHE) / "flax_distil_shards"
    path = folder / f"{digest.hexdigest()}.arrow"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(shards, path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"no space left in {folder} for a copy of {files[0].origin!r}: "
                "name a cache folder on a larger disk, or stream the data set"
            ) from error
    return datasets.Dataset.from_file(str(path))


def _write(shards: Sequence[Shard], path: Path) -> None:
    """Write all rows to a file, which gets its name when it is complete."""
    import pyarrow.ipc

    def tables() -> Generator[tuple[str, "pyarrow.Table"]]:
        for shard in shards:
            with closing(shard.blocks()) as blocks:
                for block in blocks:
                    yield shard.name, block.table

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, closing(tables()) as found:
        first = next(found, None)
        if first is None:
            raise InputError(f"{shards[0].name!r} has no rows in its {len(shards)} files")
        schema = first[1].schema
        if PROBLEMS_COLUMN not in schema.names:
            schema = schema.append(pyarrow.field(PROBLEMS_COLUMN, pyarrow.string()))
        unfinished = os.path.join(folder, path.name)
        with pyarrow.ipc.new_stream(unfinished, schema) as writer:
            for name, table in itertools.chain([first], found):
                writer.write_table(_as(table, schema, name))
        os.replace(unfinished, path)


def _as(table: "pyarrow.Table", schema: "pyarrow.Schema", name: str) -> "pyarrow.Table":
    import pyarrow

    if PROBLEMS_COLUMN not in table.column_names:
        table = table.append_column(PROBLEMS_COLUMN, pyarrow.nulls(len(table), pyarrow.string()))
    try:
        return table.select(schema.names).cast(schema)
    except (KeyError, pyarrow.ArrowException) as error:
        raise InputError(
            f"the columns of {name!r} ({', '.join(table.column_names)}) are not those of the "
            f"first file ({', '.join(schema.names)}): give all files the same columns"
        ) from error
