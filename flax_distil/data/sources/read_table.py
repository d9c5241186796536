"""Read all rows of one data set of any kind as a table of ``datasets``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flax_distil.core.files import user_path
from flax_distil.data.shards.table_shard import TableShard
from flax_distil.data.sources.builder_sources import open_builder, read_saved_folder, read_with_builder
from flax_distil.data.sources.cached_table import cached_table
from flax_distil.data.sources.concatenate import concatenate_tables
from flax_distil.data.sources.data_files import (
    check_saved_folder,
    looks_like_path,
    resolve_data_files,
)
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.file_kinds import suffix_of
from flax_distil.data.sources.file_sources import audio_files, read_audio_folder
from flax_distil.data.sources.make_shards import make_shards
from flax_distil.data.sources.splits import choose_split, whole_splits
from flax_distil.storage.remote_files import expand, has_pattern, is_remote
from flax_distil.storage.retries import strip_query

if TYPE_CHECKING:
    import datasets

BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
"""Builders of ``datasets`` for local files, by suffix."""


def read_table(spec: DatasetSpec) -> "datasets.Dataset":
    """Read the rows of one data set as a table.

    Args:
        spec: Specification of one data set, from :meth:`DatasetSpec.parts`.

    Raises:
        InputError: If the data set, configuration or split does not exist or cannot be read.
    """
    if is_remote(spec.name):
        return _read_files(spec)
    path = user_path(spec.name)
    if path.is_dir():
        return _read_folder(path, spec)
    files = [str(path)] if path.is_file() else []
    if not files and has_pattern(spec.name):
        files = expand(str(path), spec.policy)
    if (builder := _builder_of({"train": files})) is not None:
        return read_with_builder(builder, spec, data_files={"train": files})
    if files or looks_like_path(spec.name):
        return _read_files(spec)
    return read_with_builder(spec.name, spec)


def _builder_of(files: Mapping[str, Sequence[str]]) -> str | None:
    """Return the name of the builder that reads all of these files; None if there is none."""
    suffixes = {suffix_of(file) for part in files.values() for file in part}
    return BUILDERS.get(suffixes.pop()) if len(suffixes) == 1 else None


def _read_folder(folder: Path, spec: DatasetSpec) -> "datasets.Dataset":
    """Read a folder, whose contents determine the kind of its data set."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        check_saved_folder(folder)
        return choose_split(read_saved_folder(folder), spec.split, name=spec.name)
    if next(audio_files(folder), None) is not None:
        splits = read_audio_folder(folder, audio_column=spec.audio_column)
        return choose_split(splits, spec.split, name=spec.name)
    if any(next(folder.rglob(f"*{suffix}"), None) for suffix in BUILDERS):
        found = open_builder(str(folder.absolute()), spec).config.data_files or {}
        files = {str(split): [*map(str, paths)] for split, paths in found.items()}
        if (builder := _builder_of(files)) is not None:
            # Files are given by name, because ``datasets`` identifies a folder with a card by its card, not
            # by its files.
            return read_with_builder(builder, spec, data_files=files)
    return _read_files(spec)


def _read_files(spec: DatasetSpec) -> "datasets.Dataset":
    """Read files that ``datasets`` does not read: lists of recordings to memory, other files to its cache."""
    import datasets

    splits = resolve_data_files(spec)
    tables = {}
    for split in whole_splits(splits, spec.split, name=strip_query(spec.name)):
        shards = make_shards(splits[split], spec, single_name=spec.short_name)
        lists = [datasets.Dataset(shard.table) for shard in shards if isinstance(shard, TableShard)]
        if len(lists) == len(shards):
            tables[split] = concatenate_tables(lists, name=strip_query(spec.name))
        else:
            tables[split] = cached_table(shards, splits[split], spec)
    return choose_split(tables, spec.split, name=strip_query(spec.name))
