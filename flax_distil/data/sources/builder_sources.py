"""Read data sets with the library ``datasets``: from the Hub, Parquet files and ``save_to_disk`` folders."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.file_sources import read_audio_folder
from flax_distil.data.sources.splits import check_split_names, choose_split
from flax_distil.storage.retries import damaged_error

if TYPE_CHECKING:
    import datasets


def read_saved_folder(folder: Path) -> dict[str, "datasets.Dataset"]:
    """Read a folder that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote.

    Returns:
        Rows of each split, by its name.

    Raises:
        InputError: If one of its files is damaged.
    """
    import datasets
    import pyarrow

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (
        OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, pyarrow.ArrowException,
    ) as error:  # fmt: skip
        raise damaged_error(str(folder), error) from error
    if isinstance(loaded, datasets.DatasetDict):
        return {str(name): table for name, table in loaded.items()}
    return {str(loaded.split or "train"): loaded}


def read_with_builder(
    path: str, spec: DatasetSpec, *, data_files: Mapping[str, Sequence[str]] | None = None
) -> "datasets.Dataset":
    """Read a Hub id, a folder of Parquet files, or Parquet files by name.

    Args:
        path: Hub id, folder, or name of a packaged builder (``"parquet"``).
        spec: The data set; slices such as ``train[:10%]`` are allowed for its split.
        data_files: Files of each split, for a packaged builder.

    Raises:
        InputError: If the data set, configuration or split does not exist or cannot be reached.
    """
    import datasets

    builder = open_builder(path, spec, data_files=data_files)
    splits = [str(key) for key in builder.info.splits or builder.config.data_files or ()]
    split = check_split_names(splits, spec.split, name=spec.name) if splits else spec.split
    if any(base.__name__ == "AudioFolder" for base in type(builder).__mro__):
        # The builder of audio folders needs torchcodec to list files, and only the files are needed here.
        folder = _snapshot(path, spec.cache_dir)
        return choose_split(read_audio_folder(folder, audio_column=spec.audio_column), split, name=spec.name)
    try:
        builder.download_and_prepare()
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        reason = _first_line(error.__cause__ or error)
        raise InputError(f"cannot read data set {spec.name!r}: {reason}") from error
    if split is None:
        split = check_split_names([str(key) for key in builder.info.splits or ()], None, name=spec.name)
    return _as_dataset(builder, split, spec.name)


def open_builder(
    path: str, spec: DatasetSpec, *, data_files: Mapping[str, Sequence[str]] | None = None
) -> Any:
    """Return the ``datasets`` builder of a Hub id, a folder, or files of one kind, without reading rows.

    Args:
        path: Path, as for :func:`read_with_builder`.
        spec: The data set; its configuration is used.
        data_files: Files of each split, for a packaged builder, which has no configurations.

    Raises:
        InputError: If the data set or configuration does not exist or cannot be reached.
    """
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would open an address even for local files
    # These builders log what they then raise, which becomes one sentence here.
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
    try:
        return datasets.load_dataset_builder(
            path,
            spec.config_name if data_files is None else None,
            data_files=data_files,
            cache_dir=None if spec.cache_dir is None else str(spec.cache_dir),
        )
    except (ValueError, OSError, RuntimeError) as error:
        # The first line of the library's message says whether it was not found, gated, unreachable or
        # misconfigured.
        raise InputError(f"cannot load data set {spec.name!r}: {_first_line(error)}") from error


def _as_dataset(builder: Any, split: str, name: str) -> "datasets.Dataset":
    try:
        return builder.as_dataset(split=split)
    except (ValueError, AssertionError) as error:
        raise InputError(f"cannot read split {split!r} of data set {name!r}: {_first_line(error)}") from error


def _snapshot(repo_id: str, cache_dir: Path | str | None) -> Path:
    if Path(repo_id).is_dir():
        return Path(repo_id)
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(repo_id, repo_type="dataset", cache_dir=cache_dir))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
