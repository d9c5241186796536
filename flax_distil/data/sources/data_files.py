"""Find the files of a data set by its name, or make lists of its recordings, for each split."""

import json
import os
import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.sources.builder_sources import open_builder
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.file_kinds import (
    AUDIO_SUFFIXES,
    KINDS,
    MANIFEST_SUFFIXES,
    ROW_SUFFIXES,
    SHARD_SUFFIXES,
    suffix_of,
)
from flax_distil.data.sources.file_sources import (
    METADATA_NAMES,
    SPLIT_WORDS,
    audio_files,
    read_audio_files,
    read_audio_folder,
)
from flax_distil.storage.remote_files import expand, file_identity, has_pattern, is_remote, list_folder
from flax_distil.storage.retries import RetryPolicy, damaged_error, strip_query

if TYPE_CHECKING:
    import datasets

REFUSED_SUFFIXES = frozenset({".gz", ".tgz"})
"""Suffixes of compressed files, which are not read and have their own error."""

OWN_FILES = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
"""Files that ``save_to_disk`` writes beside the rows."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a data set, or a list of its recordings.

    Attributes:
        origin: Path or address of the file, or of the file or folder from which the list was made.
        listed: Rows of a list; None if the rows are in the file.
    """

    origin: str
    listed: "datasets.Dataset | None" = None


def resolve_data_files(spec: DatasetSpec) -> dict[str, list[DataFile]]:
    """Find the files of one data set, without reading recordings.

    Args:
        spec: Specification of one data set, from :meth:`DatasetSpec.parts`.

    Returns:
        Files of each split in order, by its name.

    Raises:
        InputError: If there is no such data set.
    """
    name, policy = spec.name, spec.policy
    path = str(name if is_remote(name) else user_path(name))
    if os.path.isdir(path):
        return _local_folder(Path(path), spec)
    if os.path.isfile(path):
        return {"train": [DataFile(origin=path)]}
    if has_pattern(path) or (is_remote(path) and suffix_of(path) in ROW_SUFFIXES | REFUSED_SUFFIXES):
        files = expand(path, policy)
        file_identity(files[-1], policy)  # a range that is too long is reported now, and not after days
        return {"train": [DataFile(origin=file) for file in files]}
    if is_remote(path):
        return _folder(list_folder(path, policy), path, spec.audio_column, policy)
    if looks_like_path(name):
        raise InputError(f"data set {name!r} does not exist: expected {KINDS}")
    return {
        str(split): _hub_files(str(split), [str(file) for file in files], spec.audio_column, policy)
        for split, files in (open_builder(name, spec).config.data_files or {}).items()
    }


def _hub_files(split: str, files: Sequence[str], audio_column: str, policy: RetryPolicy) -> list[DataFile]:
    """Return the files of one split of a Hub id."""
    rows = _row_files(files)
    lists = []
    for listed in _list_recordings(rows, "", audio_column, policy).values():
        # Metadata may list the recordings of all splits.
        own, table = set(rows), listed[0].listed
        if table is not None:
            chosen = [row for row, path in enumerate(table[audio_column]) if path in own]
            lists.append(DataFile(origin=split, listed=table.select(chosen)))
    return lists or [DataFile(origin=file) for file in rows]


def looks_like_path(name: str) -> bool:
    """Return whether a name is a path; a Hub id has at most one slash and no file suffix."""
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    return not is_hub_id or suffix_of(name) in ROW_SUFFIXES


def _local_folder(folder: Path, spec: DatasetSpec) -> dict[str, list[DataFile]]:
    if (folder / "dataset_dict.json").is_file():
        return {split: _saved_files(folder / split) for split in _saved_splits(folder)}
    if (folder / "state.json").is_file():
        files = _saved_files(folder)
        split = json.loads((folder / "state.json").read_text()).get("_split")
        return {split if isinstance(split, str) else "train": files}
    if next(audio_files(folder), None) is not None:
        tables = read_audio_folder(folder, audio_column=spec.audio_column)
        return {
            split: [DataFile(origin=str(folder / split), listed=table)] for split, table in tables.items()
        }
    if not _row_files([str(path) for path in folder.rglob("*")]):
        raise InputError(f"folder {spec.name!r} holds no data set: expected {KINDS}")
    builder = open_builder(str(folder.absolute()), spec)
    return {
        str(split): [DataFile(origin=str(file)) for file in files]
        for split, files in builder.config.data_files.items()
    }


def check_saved_folder(folder: Path) -> None:
    """Check that a folder of ``save_to_disk`` names files in itself only.

    Raises:
        InputError: If it names others, or one of its small files is damaged.
    """
    is_dict = (folder / "dataset_dict.json").is_file()
    for part in [folder / split for split in _saved_splits(folder)] if is_dict else [folder]:
        _saved_files(part)


def _saved_splits(folder: Path) -> list[str]:
    splits = _saved_values(folder / "dataset_dict.json", "splits", str)
    if not all(map(_is_plain_name, splits)):
        raise damaged_error(str(folder / "dataset_dict.json"), "a split in it is not the name of a folder")
    return splits


def _saved_files(folder: Path) -> list[DataFile]:
    files = _saved_values(folder / "state.json", "_data_files", dict)
    names = [file.get("filename") for file in files]
    if not all(map(_is_plain_name, names)):
        raise damaged_error(str(folder / "state.json"), "a file in it is not named, or not in this folder")
    return [DataFile(origin=str(folder / name)) for name in names]


def _is_plain_name(name: Any) -> bool:
    """Return whether a value is the name of something in a folder, and nothing outside."""
    return isinstance(name, str) and "\0" not in name and Path(name).name == name and name not in ("", "..")


def _saved_values(path: Path, key: str, kind: type) -> list[Any]:
    """Return a list that is stored in one of the small files of ``save_to_disk``."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise damaged_error(str(path), error) from error
    if not isinstance(values, list) or not values or not all(isinstance(value, kind) for value in values):
        raise damaged_error(str(path), f"it has no list {key}")
    return values


def _folder(
    files: Sequence[str], folder: str, audio_column: str, policy: RetryPolicy
) -> dict[str, list[DataFile]]:
    """Group the files of a remote folder into splits by their names."""
    rows = _row_files(files)
    if not rows:
        raise InputError(f"folder {strip_query(folder)!r} holds no data set: expected {KINDS}")
    if listed := _list_recordings(rows, folder, audio_column, policy):
        return listed
    splits: dict[str, list[DataFile]] = {}
    for file in rows:
        words = re.split(r"[^a-z]+", file.removeprefix(folder).lower())
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "train")
        splits.setdefault(split, []).append(DataFile(origin=file))
    return splits


def _list_recordings(
    files: Sequence[str], folder: str, audio_column: str, policy: RetryPolicy
) -> dict[str, list[DataFile]]:
    """Return lists of the recordings among files by split; none if there are no recordings."""
    if not any(suffix_of(file) in AUDIO_SUFFIXES for file in files):
        return {}
    tables = read_audio_files(files, folder, audio_column=audio_column, policy=policy)
    return {
        split: [DataFile(origin=posixpath.join(folder, split), listed=table)]
        for split, table in tables.items()
    }


def _row_files(files: Sequence[str]) -> list[str]:
    """Return the files that have the rows: recordings with their metadata, or all files of one kind."""

    def of_kind(suffixes: Collection[str]) -> list[str]:
        return sorted(file for file in files if suffix_of(file) in suffixes)

    if recordings := of_kind(AUDIO_SUFFIXES):
        return recordings + [file for file in files if posixpath.basename(file) in METADATA_NAMES]
    for suffix in SHARD_SUFFIXES:
        if found := of_kind({suffix}):
            return found
    return [file for file in of_kind(MANIFEST_SUFFIXES) if posixpath.basename(file) not in OWN_FILES]
