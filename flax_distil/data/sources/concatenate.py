"""Concatenate data sets: all their rows, with the columns that all of them have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset, concatenate_problems

if TYPE_CHECKING:
    import datasets


def concatenate_sources(sources: Sequence[SpeechDataset]) -> SpeechDataset:
    """Concatenate data sets.

    Args:
        sources: At least one data set.

    Returns:
        All rows, with the columns that every source has in the same type. Audio and text
        columns take the names of the first source.

    Raises:
        InputError: If the types of their texts differ.
        ValueError: If there are no sources.
    """
    import datasets

    if not sources:
        raise ValueError("expected at least one data set")
    first = sources[0]
    if len(sources) == 1:
        return first
    name = "+".join(source.name for source in sources)
    tables = [_rename_columns(source, first) for source in sources]
    shared = [
        column
        for column, feature in tables[0].features.items()
        if all(table.features.get(column) == feature for table in tables)
    ]
    for role in (first.audio_column, first.text_column, first.label_column):
        if role is not None and role not in shared:
            raise InputError(
                f"cannot join {name}: column {role!r} does not have the same type in all of them"
            )
    return SpeechDataset(
        name=name,
        table=datasets.concatenate_datasets([table.select_columns(shared) for table in tables]),
        audio_column=first.audio_column,
        text_column=first.text_column,
        label_column=first.label_column,
        speaker_column=first.speaker_column if first.speaker_column in shared else None,
        problems=concatenate_problems(sources),
        origin=name,
        policy=first.policy,
    )


def _rename_columns(source: SpeechDataset, first: SpeechDataset) -> "datasets.Dataset":
    """Give the columns of one source the names that the first source has for the same roles."""
    table = source.table
    roles = [
        (source.audio_column, first.audio_column),
        (source.text_column, first.text_column),
        (source.label_column, first.label_column),
        (source.speaker_column, first.speaker_column),
    ]
    for own, wanted in roles:
        if own is None or wanted is None or own == wanted:
            continue
        if wanted in table.column_names:
            table = table.remove_columns(wanted)
        table = table.rename_column(own, wanted)
    return table


def concatenate_tables(tables: Sequence["datasets.Dataset"], *, name: str) -> "datasets.Dataset":
    """Concatenate tables; a column that a table lacks is null in its rows, and numbers get a common type.

    Args:
        tables: At least one table.
        name: Name of the data set in messages.

    Raises:
        InputError: If columns of the same name have types that one column cannot hold.
    """
    import datasets
    import pyarrow

    if len(tables) == 1:
        return tables[0]
    try:
        return datasets.concatenate_datasets(list(tables))
    except ValueError:
        plain = [table.flatten_indices() if table._indices is not None else table for table in tables]
    try:
        joined = pyarrow.concat_tables([table.data.table for table in plain], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise InputError(
            f"the files or splits of data set {name!r} have columns of different types "
            f"({str(error).splitlines()[0].rstrip('.')}): give all of them one type, or read them apart"
        ) from error
    return datasets.Dataset(joined)
