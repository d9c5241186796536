"""Convert tables of any origin to a :class:`SpeechDataset`, with checked types and named rows."""

import decimal
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import (
    DURATION_COLUMN,
    ID_COLUMN,
    PREVIOUS_COLUMN,
    SpeechDataset,
    require_columns,
)
from flax_distil.data.foreign_files import foreign_files
from flax_distil.data.fragments import seconds
from flax_distil.data.shards.row_columns import EVERY_ROLE, PROBLEMS_COLUMN

if TYPE_CHECKING:
    import datasets
    import pyarrow

SPEAKER_COLUMNS = ("speaker_id", "speaker", "source_id")
"""Columns that may identify speakers where none is named; the last one names the recording of a cut row."""


def to_speech_dataset(
    table: "datasets.Dataset",
    *,
    name: str,
    audio_column: str = "audio",
    text_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str | None = None,
    id_prefix: str,
    first_row: int = 0,
    local_files: str | None = None,
) -> SpeechDataset:
    """Convert the columns of a table to the form that the package reads; no audio is copied.

    Args:
        table: The rows.
        name: Short name for messages.
        audio_column: Column of recordings: encoded, or paths.
        text_column: Column of reference texts, None if there are none.
        label_column: Column of pseudo-labels, None if there are none.
        speaker_column: Column that identifies speakers; None takes the first of :data:`SPEAKER_COLUMNS`
            that has values, if any.
        id_prefix: A row without an ``id`` is called ``prefix:number``.
        first_row: Number of the first row.
        local_files: Folder of the only files of this machine that rows may name, "" for none; None for any.

    Raises:
        InputError: If a column does not exist, or the columns of recordings, texts or durations hold
            something else.
    """
    table, noted = _take_problems(table)
    needed = [audio_column, text_column, label_column, speaker_column]
    require_columns(table, [column for column in needed if column], name=name)
    if speaker_column is None:
        speaker_column = next((column for column in SPEAKER_COLUMNS if _has_values(table, column)), None)
    table = _cast_audio(table, audio_column, name)
    foreign = {} if local_files is None else foreign_files(table, audio_column, local_files)
    table = _cast_texts(table, [column for column in (text_column, label_column) if column], name)
    table, durations = _cast_durations(table, name)
    _check_previous(table, name)
    used = [column for column in (EVERY_ROLE, audio_column, label_column or text_column) if column]
    return SpeechDataset(
        name=name,
        table=_name_rows(table, id_prefix, first_row),
        audio_column=audio_column,
        text_column=text_column,
        label_column=label_column,
        speaker_column=speaker_column,
        problems={**durations, **_first_problems(noted, used), **foreign},
        origin=id_prefix,
        first_row=first_row,
    )


def _has_values(table: "datasets.Dataset", column: str) -> bool:
    return column in table.column_names and table.data[column].null_count < table.data.num_rows


def _take_problems(table: "datasets.Dataset") -> tuple["datasets.Dataset", dict[int, dict[str, str]]]:
    """Remove the column of problems, and return its contents: row to column to a sentence."""
    if PROBLEMS_COLUMN not in table.column_names:
        return table, {}
    notes = {row: json.loads(note) for row, note in enumerate(table[PROBLEMS_COLUMN]) if note}
    return table.remove_columns(PROBLEMS_COLUMN), notes


def _first_problems(noted: Mapping[int, Mapping[str, str]], columns: Sequence[str]) -> dict[int, str]:
    """Return the first problem of each row in the given columns."""
    found = {row: [notes[column] for column in columns if column in notes] for row, notes in noted.items()}
    return {row: reasons[0] for row, reasons in found.items() if reasons}


def _cast_audio(table: "datasets.Dataset", column: str, name: str) -> "datasets.Dataset":
    """Convert the audio column to bytes and paths, so that ``datasets`` never decodes it."""
    import datasets
    import pyarrow

    try:
        if not _holds_recordings(table.data.schema.field(column).type):
            raise TypeError
        return table.cast_column(column, datasets.Audio(decode=False))
    except (pyarrow.ArrowException, ValueError, TypeError, ImportError) as error:
        raise InputError(
            f"column {column!r} of data set {name!r} is of type {table.data.schema.field(column).type}: "
            "expected encoded audio (bytes) or paths"
        ) from error


def _holds_recordings(kind: "pyarrow.DataType") -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return bool(fields.keys() & {"bytes", "path"}) and all(
            types.is_null(inner) or (types.is_binary if part == "bytes" else types.is_string)(inner)
            for part, inner in fields.items()
            if part in ("bytes", "path")
        )
    return types.is_null(kind) or types.is_string(kind) or types.is_binary(kind) or _is_text(kind)


def _is_text(kind: "pyarrow.DataType") -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_string_view))


def _cast_texts(table: "datasets.Dataset", columns: list[str], name: str) -> "datasets.Dataset":
    """Convert columns of texts to strings; a column of other values is refused."""
    import datasets
    import pyarrow.types as types

    text = datasets.Value("string")
    for column in columns:
        kind = table.data.schema.field(column).type
        if not _is_text(kind) and not types.is_null(kind):
            raise InputError(
                f"column {column!r} of data set {name!r} is of type {kind}: expected texts; "
                "name the column of transcripts"
            )
        if table.features[column] != text:
            values = [None if value is None else str(value) for value in table.data[column].to_pylist()]
            table = table.remove_columns(column).add_column(column, values, feature=text)
    return table


def _cast_durations(table: "datasets.Dataset", name: str) -> tuple["datasets.Dataset", dict[int, str]]:
    """Convert the column of durations to numbers; other values become null and are reported by row."""
    import datasets
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.types as types

    if DURATION_COLUMN not in table.column_names:
        return table, {}
    if table._indices is not None:
        table = table.flatten_indices()
    kind, column = table.data.schema.field(DURATION_COLUMN).type, table.data[DURATION_COLUMN]
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = column.cast(pyarrow.float64(), safe=False)
        valid = compute.and_(compute.is_finite(numbers), compute.greater_equal(numbers, 0.0))
        bad = compute.and_(column.is_valid(), compute.invert(valid.fill_null(False)))
        if not compute.any(bad).as_py():
            if kind == pyarrow.float64():
                return table, {}
            values: list[float | None] = numbers.to_pylist()
            return _replace_column(table, DURATION_COLUMN, values, datasets.Value("float64")), {}
    elif not _is_text(kind):
        raise InputError(
            f"column {DURATION_COLUMN!r} of data set {name!r} is of type {kind}: expected seconds; "
            "correct it, or take it out"
        )
    given = [None if value == "" else value for value in column.to_pylist()]
    values = [None if value is None else seconds(_plain_number(value)) for value in given]
    problems = {
        row: f"column {DURATION_COLUMN!r} holds {str(value)[:40]!r}, which is not a number of seconds"
        for row, (value, found) in enumerate(zip(given, values, strict=True))
        if value is not None and found is None
    }
    return _replace_column(table, DURATION_COLUMN, values, datasets.Value("float64")), problems


def _check_previous(table: "datasets.Dataset", name: str) -> None:
    """Refuse a column of previous texts that holds neither token ids nor flags."""
    import pyarrow.types as types

    if PREVIOUS_COLUMN not in table.column_names:
        return
    kind = table.data.schema.field(PREVIOUS_COLUMN).type
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
    if not (types.is_integer(inner) or types.is_boolean(inner) or types.is_null(inner)):
        raise InputError(
            f"column {PREVIOUS_COLUMN!r} of data set {name!r} is of type {kind}: expected token ids; "
            "correct it, or take it out"
        )


def _plain_number(value: Any) -> Any:
    return float(value) if isinstance(value, decimal.Decimal) else value


def _replace_column(
    table: "datasets.Dataset", column: str, values: list[Any], feature: Any
) -> "datasets.Dataset":
    return table.remove_columns(column).add_column(column, values, feature=feature)


def _name_rows(table: "datasets.Dataset", prefix: str, first_row: int) -> "datasets.Dataset":
    """Give a name to every row that has none."""
    import datasets

    exists = ID_COLUMN in table.column_names
    names = (
        [None if name is None else str(name) for name in table[ID_COLUMN]] if exists else [None] * len(table)
    )
    if None not in names:
        text = datasets.Value("string")
        return table if table.features[ID_COLUMN] == text else _replace_column(table, ID_COLUMN, names, text)
    called = [
        f"{prefix}:{number}" if value is None else value for number, value in enumerate(names, first_row)
    ]
    return (table.remove_columns(ID_COLUMN) if exists else table).add_column(ID_COLUMN, called)
