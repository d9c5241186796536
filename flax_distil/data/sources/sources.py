"""One way in for every kind of data set: what the user wrote becomes :class:`SpeechDataset` or a stream."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.core.paths import user_path
from flax_distil.data.dataset import SpeechDataset, require_columns
from flax_distil.data.naming import with_distinct_names
from flax_distil.data.remote.files import expand, has_pattern, is_remote
from flax_distil.data.remote.retries import DEFAULT_POLICY, RetryPolicy, shown
from flax_distil.data.sources.builder_sources import open_builder, read_saved_folder, read_with_builder
from flax_distil.data.sources.cached_table import cached_table
from flax_distil.data.sources.concatenate import concatenate_sources
from flax_distil.data.sources.data_files import (
    KINDS,
    ROW_SUFFIXES,
    DataFile,
    looks_like_path,
    resolve_data_files,
)
from flax_distil.data.sources.file_sources import audio_files, read_audio_folder, suffix_of
from flax_distil.data.sources.make_shards import make_shards
from flax_distil.data.sources.splits import check_split_names, choose_split, concatenate_tables
from flax_distil.data.sources.table_shards import TableShard
from flax_distil.data.sources.take import Take
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.tables import to_speech_dataset

if TYPE_CHECKING:
    import datasets

BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
"""Files that ``datasets`` reads by itself where they lie on this disk."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """One of the data sets that a ``+``-joined specification names."""

    name: str
    config_name: str | None
    split: str | None
    audio_column: str
    text_column: str | None
    label_column: str | None = None
    speaker_column: str | None = None


def parse_sources(
    spec: str,
    *,
    config_name: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str | None = None,
) -> list[SourceSpec]:
    """Split ``a+b`` into its data sets, each with its own configuration, split and columns.

    The other arguments are joined by ``+`` as well: as many as there are data sets, or one for
    all; an empty one is none. With a single data set, ``split="train+validation"`` names two of its
    splits. A path that exists as written is never taken apart, nor are braces, nor an address before
    it names a file, a pattern or, by a slash at its end, a folder.

    Raises:
        InputError: if the numbers do not agree.
    """
    names = _names(spec)
    if not all(names):
        raise InputError(f"data set {spec!r} has an empty name beside a '+': name one data set on each side")

    def parts(value: str | None, what: str) -> list[str | None]:
        return [part or None for part in split_values(value, what, spec)]

    return [
        SourceSpec(
            name=name,
            config_name=config,
            split=part,
            audio_column=audio or "audio",
            text_column=text,
            label_column=label,
            speaker_column=speaker,
        )
        for name, config, part, audio, text, label, speaker in zip(
            names,
            parts(config_name, "configurations"),
            parts(split, "splits"),
            parts(audio_column, "audio columns"),
            parts(text_column, "text columns"),
            parts(label_column, "label columns"),
            parts(speaker_column, "speaker columns"),
            strict=True,
        )
    ]


def split_values(value: str | None, what: str, spec: str) -> list[str | None]:
    """Split ``x+y`` into one value for each data set of a specification; a single one is for all.

    Args:
        value: The values; None is one that is not given.
        what: What to call them in a message, in the plural.
        spec: The data sets.

    Raises:
        InputError: if the numbers do not agree.
    """
    count = len(_names(spec))
    values = [value] if value is None or count == 1 else [part.strip() for part in value.split("+")]
    if len(values) not in (1, count):
        raise InputError(
            f"{len(values)} {what} ({value}) for {count} data sets ({spec}): "
            "give one for all, or as many as data sets"
        )
    return [*values] * (count if len(values) == 1 else 1)


def _names(spec: str) -> list[str]:
    """Take a specification apart at each ``+`` that is not part of a name."""
    names: list[str] = []
    for part in re.split(r"\+(?![^{}]*\})", spec):
        if names and _goes_on(names[-1], part):
            names[-1] += f"+{part}"
        else:
            names.append(part)
    return [spec] if _exists(spec) else [name.strip() for name in names]


def _goes_on(name: str, part: str) -> bool:
    """Return whether a ``+`` and what follows still belong to a name."""
    if not is_remote(name):
        return not _exists(name) and _exists(f"{name}+{part}")
    whole = has_pattern(name) or name.endswith("/") or suffix_of(name) in ROW_SUFFIXES
    return not whole and not is_remote(part)


def _exists(name: str) -> bool:
    return not is_remote(name) and user_path(name.strip()).exists()


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
    policy: RetryPolicy = DEFAULT_POLICY,
    channel: int | None = None,
) -> list[SpeechDataset]:
    """Open every data set of a specification, checking names and columns before any work.

    Args:
        spec: Hub id, ``save_to_disk`` folder, folder of audio files, JSONL or CSV file of paths, or
            Parquet, Arrow or tar files (WebDataset) by name, folder or pattern, ``{00..99}``
            included; or several joined by ``+``. Paths may be ``gs://``, ``s3://``, ``http(s)://``
            and ``hf://`` addresses.
        config_name: Configuration; ``+``-joined for several data sets.
        split: Split, slices allowed; ``+``-joined for several. None takes the only one.
        audio_column: Column of recordings; ``+``-joined for several.
        text_column: Column of reference texts; ``+``-joined for several; None if there are none.
        label_column: Column of pseudo-labels; ``+``-joined for several; None if there are none.
        speaker_column: Column that tells speakers apart; ``+``-joined for several; None takes a usual one
            where it exists.
        required_columns: Further columns that must exist.
        max_samples: Keep only the first rows of each.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Where ``datasets`` keeps what it downloads or converts.
        policy: When to ask a server again.
        channel: The channel of recordings that is meant, counted from 0; None for the mean of all.

    Returns:
        One :class:`SpeechDataset` per data set, in the order written, each with a name of its own.

    Raises:
        InputError: if a data set, configuration, split or column does not exist, or it has no rows.
    """
    place = _Place(revision=revision, cache_dir=None if cache_dir is None else str(cache_dir), policy=policy)
    loaded = []
    for source in parse_sources(
        spec,
        config_name=config_name,
        split=split,
        audio_column=audio_column,
        text_column=text_column,
        label_column=label_column,
        speaker_column=speaker_column,
    ):
        table = _read(source, place)
        require_columns(table, required_columns, name=shown(source.name))
        if not len(table):
            raise InputError(
                f"data set {shown(source.name)!r} has no rows in split {source.split or 'train'!r}"
            )
        if max_samples is not None:
            table = table.select(range(min(max_samples, len(table))))
        data = to_speech_dataset(
            table,
            name=shown(source.name),
            audio_column=source.audio_column,
            text_column=source.text_column,
            label_column=source.label_column,
            speaker_column=source.speaker_column,
            id_prefix=_prefix(source),
            policy=policy,
        )
        loaded.append(dataclasses.replace(data, name=_short_name(source.name), channel=channel))
    return with_distinct_names(loaded)


def stream_sources(
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
    policy: RetryPolicy = DEFAULT_POLICY,
    channel: int | None = None,
) -> list[IterableSpeechDataset]:
    """Open every data set of a specification to be read from front to back, keeping nothing on disk.

    The first rows are read, to check that the columns exist.

    Args:
        spec: As for :func:`load_sources`.
        config_name: Configuration; ``+``-joined for several data sets.
        split: Split, no slices; ``+``-joined for several. None takes the only one.
        audio_column: Column of recordings; ``+``-joined for several.
        text_column: Column of reference texts; ``+``-joined for several; None if there are none.
        label_column: Column of pseudo-labels; ``+``-joined for several; None if there are none.
        speaker_column: Column that tells speakers apart; ``+``-joined for several; None takes a usual one
            where it exists.
        required_columns: Further columns that must exist.
        max_samples: Keep only the first rows of each.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Where ``datasets`` keeps what it learns of a Hub id.
        policy: When to ask a server again.
        channel: As for :func:`load_sources`.

    Returns:
        One :class:`IterableSpeechDataset` per data set, in the order written, each with a name of its own.

    Raises:
        InputError: as :func:`load_sources`, and if a split is a slice.
    """
    place = _Place(revision=revision, cache_dir=None if cache_dir is None else str(cache_dir), policy=policy)
    streams = []
    for source in parse_sources(
        spec,
        config_name=config_name,
        split=split,
        audio_column=audio_column,
        text_column=text_column,
        label_column=label_column,
        speaker_column=speaker_column,
    ):
        if "[" in (source.split or ""):
            raise InputError(
                f"split {source.split!r} of data set {shown(source.name)!r} is a slice, and a stream cannot "
                "tell where that begins: name whole splits, or do not stream"
            )
        splits = _data_files(source, place)
        shards = make_shards(
            [piece for name in _split_names(source, splits) for piece in splits[name]],
            name=_short_name(source.name),
            single_name=_prefix(source),
            audio_column=source.audio_column,
            policy=policy,
        )
        if max_samples is not None:
            shards = (Take(name=_prefix(source), shards=shards, rows=max_samples),)
        stream = IterableSpeechDataset(
            name=_short_name(source.name),
            shards=shards,
            audio_column=source.audio_column,
            text_column=source.text_column,
            label_column=source.label_column,
            speaker_column=source.speaker_column,
            policy=policy,
            channel=channel,
        )
        require_columns(stream.first_rows().table, required_columns, name=stream.name)
        streams.append(stream)
    return with_distinct_names(streams)


def load_source(spec: str, **options: Any) -> SpeechDataset:
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
    return concatenate_sources(load_sources(spec, **options))


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where all data sets of a specification are read from and kept."""

    revision: str | None
    cache_dir: str | None
    policy: RetryPolicy


def _read(source: SourceSpec, place: _Place) -> "datasets.Dataset":
    """Read the rows of one source, whatever kind it is."""
    options: dict[str, Any] = {"revision": place.revision, "cache_dir": place.cache_dir}
    builder: dict[str, Any] = {
        "name": source.name,
        "config_name": source.config_name,
        "split": source.split,
        "audio_column": source.audio_column,
    }
    if is_remote(source.name):
        return _read_files(source, place)
    path = user_path(source.name)
    if path.is_dir():
        return _read_folder(path, source, builder, place)
    files = [str(path)] if path.is_file() else []
    if not files and has_pattern(source.name):
        files = expand(str(path), place.policy)
    suffixes = {suffix_of(file) for file in files}
    if len(suffixes) == 1 and suffixes <= BUILDERS.keys():
        options["data_files"], builder["config_name"] = {"train": files}, None
        return read_with_builder(BUILDERS[suffixes.pop()], options=options, **builder)
    if files or looks_like_path(source.name):
        return _read_files(source, place)
    return read_with_builder(source.name, options=options, **builder)


def _read_folder(
    folder: Path, source: SourceSpec, builder: dict[str, Any], place: _Place
) -> "datasets.Dataset":
    """Tell by its contents what kind of data set a folder holds."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return choose_split(read_saved_folder(folder), source.split, name=source.name)
    if next(audio_files(folder), None) is not None:
        splits = read_audio_folder(folder, audio_column=source.audio_column)
        return choose_split(splits, source.split, name=source.name)
    if any(next(folder.rglob(f"*{suffix}"), None) for suffix in BUILDERS):
        options: dict[str, Any] = {"cache_dir": place.cache_dir}
        opened = open_builder(
            str(folder.absolute()), name=source.name, config_name=source.config_name, options=options
        )
        files = {str(split): [*map(str, files)] for split, files in (opened.config.data_files or {}).items()}
        suffixes = {suffix_of(file) for part in files.values() for file in part}
        if len(suffixes) == 1 and suffixes <= BUILDERS.keys():
            # By name: ``datasets`` finds its copy of a folder with a card by the card, not by its files.
            options["data_files"] = files
            return read_with_builder(
                BUILDERS[suffixes.pop()], options=options, **{**builder, "config_name": None}
            )
    return _read_files(source, place)


def _read_files(source: SourceSpec, place: _Place) -> "datasets.Dataset":
    """Read what ``datasets`` does not: lists of recordings at once, other files into its cache."""
    import datasets

    splits = _data_files(source, place)
    tables = {}
    for name in _split_names(source, splits):
        shards = make_shards(
            splits[name],
            name=_short_name(source.name),
            single_name=_short_name(source.name),
            audio_column=source.audio_column,
            policy=place.policy,
        )
        lists = [datasets.Dataset(shard.table) for shard in shards if isinstance(shard, TableShard)]
        if len(lists) == len(shards):
            tables[name] = concatenate_tables(lists, name=shown(source.name))
        else:
            tables[name] = cached_table(
                shards,
                splits[name],
                audio_column=source.audio_column,
                cache_dir=place.cache_dir,
                policy=place.policy,
            )
    return choose_split(tables, source.split, name=shown(source.name))


def _data_files(source: SourceSpec, place: _Place) -> dict[str, list[DataFile]]:
    return resolve_data_files(
        source.name,
        config_name=source.config_name,
        revision=place.revision,
        cache_dir=place.cache_dir,
        audio_column=source.audio_column,
        policy=place.policy,
    )


def _split_names(source: SourceSpec, splits: Mapping[str, list[DataFile]]) -> list[str]:
    """Return the splits that a source names, without slices."""
    if not splits:
        raise InputError(f"data set {shown(source.name)!r} holds no files of rows: expected {KINDS}")
    chosen = check_split_names(list(splits), source.split, name=shown(source.name))
    return list(dict.fromkeys(part.partition("[")[0].strip() for part in chosen.split("+")))


def _prefix(source: SourceSpec) -> str:
    """Return what the ids of rows without one begin with."""
    return _short_name(source.name) + (f"/{source.split}" if source.split else "")


def _short_name(name: str) -> str:
    """Return what messages and ids call a source: a file's stem, a folder's name, a Hub id's last part."""
    path = Path(shown(name).partition("://")[2] if is_remote(name) else name)
    if has_pattern(path.name):
        path = path.absolute().parent
    elif suffix_of(path.name) in ROW_SUFFIXES:
        return path.stem
    return path.name or path.absolute().name
