"""One way in for every kind of data set: what the user wrote becomes :class:`SpeechData`."""

import dataclasses
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core import InputError
from flax_distil.data.builder_sources import read_saved_folder, read_with_builder
from flax_distil.data.file_sources import audio_files, read_audio_folder, read_manifest
from flax_distil.data.joining import join_sources
from flax_distil.data.speech_data import SpeechData, require_columns
from flax_distil.data.splits import choose_split
from flax_distil.data.tables import speech_data

if TYPE_CHECKING:
    import datasets

MANIFEST_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv"})

KINDS = (
    "a Hub id, a folder written by save_to_disk, a folder of audio files, "
    "Parquet files or a JSONL or CSV file of paths"
)


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """One of the data sets that a ``+``-joined specification names."""

    name: str
    config_name: str | None
    split: str | None
    audio_column: str
    text_column: str | None


def parse_sources(
    spec: str,
    *,
    config_name: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str | None = None,
) -> list[SourceSpec]:
    """Split ``a+b`` into its data sets, each with its own configuration, split and columns.

    The other arguments are joined by ``+`` as well: as many as there are data sets, or one for
    all. With a single data set, ``split="train+validation"`` names two of its splits. A path
    that exists as written is never taken apart.

    Raises:
        InputError: if the numbers do not agree.
    """
    names = [spec] if Path(spec).exists() else [name.strip() for name in spec.split("+")]
    if not all(names):
        raise InputError(f"data set {spec!r} has an empty name beside a '+': name one data set on each side")

    def parts(value: str | None, what: str) -> Sequence[str | None]:
        values = [value] if value is None or len(names) == 1 else [part.strip() for part in value.split("+")]
        if len(values) not in (1, len(names)):
            raise InputError(
                f"{len(values)} {what} ({value}) for {len(names)} data sets ({spec}): "
                "give one for all, or as many as data sets"
            )
        return values * len(names) if len(values) == 1 else values

    audio_columns = parts(audio_column, "audio columns")
    return [
        SourceSpec(
            name=name, config_name=config or None, split=part, audio_column=audio or "audio", text_column=text
        )
        for name, config, part, audio, text in zip(
            names,
            parts(config_name, "configurations"),
            parts(split, "splits"),
            audio_columns,
            parts(text_column, "text columns"),
            strict=True,
        )
    ]


def load_sources(
    spec: str,
    *,
    config_name: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str | None = None,
    required_columns: Sequence[str] = (),
    max_samples: int | None = None,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
) -> list[SpeechData]:
    """Open every data set of a specification, checking names and columns before any work.

    Args:
        spec: Hub id, ``save_to_disk`` folder, folder of audio files, Parquet file, folder or
            glob, JSONL or CSV file of paths; or several joined by ``+``.
        config_name: Configuration; ``+``-joined for several data sets.
        split: Split, slices allowed; ``+``-joined for several. None takes the only one.
        audio_column: Column of recordings; ``+``-joined for several.
        text_column: Column of reference texts; ``+``-joined for several; None if there are none.
        label_column: Column of pseudo-labels; None if there are none.
        speaker_column: Column that tells speakers apart; None takes a usual one where it exists.
        required_columns: Further columns that must exist.
        max_samples: Keep only the first rows of each.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Where ``datasets`` keeps what it downloads or converts.

    Returns:
        One :class:`SpeechData` per data set, in the order written.

    Raises:
        InputError: if a data set, configuration, split or column does not exist, or it has no rows.
    """
    options = {"revision": revision, "cache_dir": None if cache_dir is None else str(cache_dir)}
    loaded = []
    for source in parse_sources(
        spec, config_name=config_name, split=split, audio_column=audio_column, text_column=text_column
    ):
        table = _read(source, options)
        require_columns(table, required_columns, name=source.name)
        if not len(table):
            raise InputError(f"data set {source.name!r} has no rows in split {source.split or 'train'!r}")
        if max_samples is not None:
            table = table.select(range(min(max_samples, len(table))))
        name = _short_name(source.name)
        prefix = name + (f"/{source.split}" if source.split else "")
        data = speech_data(
            table,
            name=source.name,
            audio_column=source.audio_column,
            text_column=source.text_column,
            label_column=label_column,
            speaker_column=speaker_column,
            id_prefix=prefix,
        )
        loaded.append(dataclasses.replace(data, name=name))
    return loaded


def load_source(spec: str, **options: Any) -> SpeechData:
    """Open a specification as one data set; several are put one after the other.

    Args:
        spec: As for :func:`load_sources`.
        **options: As for :func:`load_sources`.

    Returns:
        All rows. Joined data sets keep the columns that all of them have; their audio and text
        columns take the names of the first.

    Raises:
        InputError: as :func:`load_sources`.
    """
    return join_sources(load_sources(spec, **options))


def _read(source: SourceSpec, options: dict[str, Any]) -> "datasets.Dataset":
    """Read the rows of one source, whatever kind it is."""
    path = Path(source.name).expanduser()
    builder: dict[str, Any] = {
        "name": source.name,
        "config_name": source.config_name,
        "split": source.split,
        "audio_column": source.audio_column,
    }
    if path.is_dir():
        return _read_folder(path, source, builder, options)
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        splits = read_manifest(path, audio_column=source.audio_column)
        return choose_split(splits, source.split, name=source.name)
    files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
    if files:
        strangers = [file for file in files if Path(file).suffix.lower() != ".parquet"]
        if strangers:
            raise InputError(f"cannot read {strangers[0]!r} as a data set: expected {KINDS}")
        options = {**options, "data_files": {"train": files}}
        return read_with_builder("parquet", options=options, **{**builder, "config_name": None})
    if _looks_like_path(source.name):
        raise InputError(f"data set {source.name!r} does not exist: expected {KINDS}")
    return read_with_builder(source.name, options=options, **builder)


def _read_folder(
    folder: Path, source: SourceSpec, builder: dict[str, Any], options: dict[str, Any]
) -> "datasets.Dataset":
    """Tell by its contents what kind of data set a folder holds."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return choose_split(read_saved_folder(folder), source.split, name=source.name)
    if next(audio_files(folder), None) is not None:
        splits = read_audio_folder(folder, audio_column=source.audio_column)
        return choose_split(splits, source.split, name=source.name)
    if next(folder.rglob("*.parquet"), None) is not None:
        return read_with_builder(str(folder.absolute()), options={**options, "revision": None}, **builder)
    raise InputError(f"folder {source.name!r} holds no data set: expected {KINDS}")


def _looks_like_path(name: str) -> bool:
    """Tell a path that does not exist from a Hub id, which has at most one slash and no suffix of a file."""
    suffixes = MANIFEST_SUFFIXES | {".parquet"}
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    return not is_hub_id or Path(name).suffix.lower() in suffixes


def _short_name(name: str) -> str:
    """Return what messages and ids call a source: a file's stem, a folder's name, a Hub id's last part."""
    path = Path(name)
    if path.suffix.lower() in MANIFEST_SUFFIXES | {".parquet"} and "*" not in path.name:
        return path.stem
    return path.name or path.absolute().name
