"""Tables of any origin become :class:`SpeechData`: audio left encoded, one type per role, every row named."""

from typing import TYPE_CHECKING, Any

from flax_distil.core import InputError
from flax_distil.data.speech_data import DURATION_COLUMN, ID_COLUMN, SpeechData, require_columns

if TYPE_CHECKING:
    import datasets

SPEAKER_COLUMNS = ("speaker_id", "speaker", "source_id")
"""Columns taken for the speaker where none is named; the last is the recording that a row was cut from."""


def speech_data(
    table: "datasets.Dataset",
    *,
    name: str,
    audio_column: str = "audio",
    text_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str | None = None,
    id_prefix: str,
    first_row: int = 0,
) -> SpeechData:
    """Bring a table's columns into the form that all of the package reads; no audio is copied.

    Args:
        table: The rows.
        name: Short name for messages.
        audio_column: Column of recordings: encoded, or paths.
        text_column: Column of reference texts, None if there are none.
        label_column: Column of pseudo-labels, None if there are none.
        speaker_column: Column that tells speakers apart; None takes the first of :data:`SPEAKER_COLUMNS`
            that has values, if any.
        id_prefix: A row without an ``id`` is called ``prefix:number``.
        first_row: Number of the first row.

    Raises:
        InputError: if a column does not exist, or the audio column holds something else than recordings.
    """
    needed = [audio_column, text_column, label_column, speaker_column]
    require_columns(table, [column for column in needed if column], name=name)
    if speaker_column is None:
        speaker_column = next((column for column in SPEAKER_COLUMNS if _has_values(table, column)), None)
    table = _undecoded(table, audio_column, name)
    texts = [column for column in (text_column, label_column, ID_COLUMN) if column]
    return SpeechData(
        name=name,
        table=_named(_plain_columns(table, texts), id_prefix, first_row),
        audio_column=audio_column,
        text_column=text_column,
        label_column=label_column,
        speaker_column=speaker_column,
    )


def _has_values(table: "datasets.Dataset", column: str) -> bool:
    return column in table.column_names and table.data[column].null_count < table.data.num_rows


def _undecoded(table: "datasets.Dataset", column: str, name: str) -> "datasets.Dataset":
    """Make the audio column bytes and path, never decoded by ``datasets``."""
    import datasets
    import pyarrow

    try:
        return table.cast_column(column, datasets.Audio(decode=False))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, TypeError, ImportError) as error:
        raise InputError(
            f"column {column!r} of data set {name!r} is of type {table.features[column]}: "
            "expected encoded audio (bytes) or paths"
        ) from error


def _plain_columns(table: "datasets.Dataset", texts: list[str]) -> "datasets.Dataset":
    """Bring texts and durations to one type each, whatever the files use."""
    import datasets

    types: dict[str, tuple[type, Any]] = {DURATION_COLUMN: (float, datasets.Value("float64"))}
    types |= {column: (str, datasets.Value("string")) for column in texts}
    for column, (convert, feature) in types.items():
        if column in table.column_names and table.features[column] != feature:
            values = [None if value is None else convert(value) for value in table[column]]
            table = table.remove_columns(column).add_column(column, values, feature=feature)
    return table


def _named(table: "datasets.Dataset", prefix: str, first_row: int) -> "datasets.Dataset":
    """Give every row without a name one."""
    exists = ID_COLUMN in table.column_names
    names = list(table[ID_COLUMN]) if exists else [None] * len(table)
    if None not in names:
        return table
    names = [
        f"{prefix}:{number}" if value is None else value for number, value in enumerate(names, first_row)
    ]
    return (table.remove_columns(ID_COLUMN) if exists else table).add_column(ID_COLUMN, names)
