"""Open the data sets that a user names, of any kind, as tables or as streams."""

import dataclasses
import sys
from collections.abc import Sequence

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.naming import with_distinct_names
from flax_distil.data.shards.take import Take
from flax_distil.data.sources.concatenate import concatenate_sources
from flax_distil.data.sources.data_files import resolve_data_files
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.make_shards import make_shards
from flax_distil.data.sources.read_table import read_table
from flax_distil.data.sources.splits import whole_splits
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.tables import to_speech_dataset
from flax_distil.storage.retries import strip_query


def load_datasets(spec: DatasetSpec) -> Sequence[SpeechDataset | IterableSpeechDataset]:
    """Open every data set of a specification as a table, or with ``streaming`` as a stream.

    Raises:
        InputError: If :func:`load_tables` or :func:`load_streams` raises it.
    """
    return load_streams(spec) if spec.streaming else load_tables(spec)


def load_table(spec: DatasetSpec) -> SpeechDataset:
    """Open the data sets of a specification as one table; several data sets are concatenated.

    Returns:
        All rows. Concatenated data sets keep the columns that all of them have; their audio and text
        columns take the names of the first.

    Raises:
        InputError: If :func:`load_tables` raises it.
    """
    return concatenate_sources(load_tables(spec))


def load_tables(spec: DatasetSpec) -> list[SpeechDataset]:
    """Open every data set of a specification as a table, after checking names and columns.

    Returns:
        One table per data set, in the order written; all names are different.

    Raises:
        InputError: If a data set, configuration, split or column does not exist, or a data set has no rows.
    """
    return with_distinct_names([_load_table(part) for part in spec.parts()])


def _load_table(spec: DatasetSpec) -> SpeechDataset:
    table = read_table(spec)
    if not len(table):
        raise InputError(
            f"data set {strip_query(spec.name)!r} has no rows in split {spec.split or 'train'!r}"
        )
    if spec.max_samples is not None:
        table = table.select(range(min(spec.max_samples, len(table))))
    data = to_speech_dataset(
        table,
        name=strip_query(spec.name),
        audio_column=spec.audio_column,
        text_column=spec.text_column,
        label_column=spec.label_column,
        speaker_column=spec.speaker_column,
        id_prefix=spec.id_prefix,
        local_files=spec.local_files,
    )
    return dataclasses.replace(data, name=spec.short_name, policy=spec.policy, channel=spec.channel)


def load_streams(spec: DatasetSpec, *, as_one_shard: bool = False) -> list[IterableSpeechDataset]:
    """Open every data set of a specification as a stream, which keeps nothing on disk.

    The first rows are read, to check that the columns exist.

    Args:
        spec: Specification of the data sets.
        as_one_shard: Whether rows are numbered over all files, and so named as those of a table, rather
            than in each file.

    Returns:
        One stream per data set, in the order written; all names are different.

    Raises:
        InputError: If :func:`load_tables` raises it, or if a split is a slice.
    """
    return with_distinct_names([_load_stream(part, as_one_shard=as_one_shard) for part in spec.parts()])


def _load_stream(spec: DatasetSpec, *, as_one_shard: bool) -> IterableSpeechDataset:
    if "[" in (spec.split or ""):
        raise InputError(
            f"split {spec.split!r} of data set {strip_query(spec.name)!r} is a slice, and a stream cannot "
            "tell where that begins: name whole splits, or do not stream"
        )
    splits = resolve_data_files(spec)
    files = [
        file
        for split in whole_splits(splits, spec.split, name=strip_query(spec.name))
        for file in splits[split]
    ]
    shards = make_shards(files, spec, single_name=spec.id_prefix)
    if spec.max_samples is not None or as_one_shard:
        shards = (Take(name=spec.id_prefix, shards=shards, rows=spec.max_samples or sys.maxsize),)
    stream = IterableSpeechDataset(
        name=spec.short_name,
        shards=shards,
        audio_column=spec.audio_column,
        text_column=spec.text_column,
        label_column=spec.label_column,
        speaker_column=spec.speaker_column,
        policy=spec.policy,
        channel=spec.channel,
        local_files=spec.local_files,
    )
    stream.first_rows()  # this checks the columns
    return stream
