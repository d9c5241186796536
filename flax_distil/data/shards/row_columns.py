"""Convert rows of JSON values to columns of one type each, and note values that do not fit."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

PROBLEMS_COLUMN = "__problems__"
"""Column of JSON objects, which describe values that are not of their column's type: a sentence by column."""

EVERY_ROLE = "*"
"""Name that replaces a column for a problem that makes the whole row unusable."""

MAX_DEPTH = 16
"""Values that are nested deeper are kept as JSON text; Arrow itself fails at about sixty levels."""

Row = dict[str, Any]

_NAMES = {
    str: "a text that is not valid Unicode",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def row_columns(rows: Sequence[Row], names: Sequence[str]) -> dict[str, "pyarrow.Array"]:
    """Return a column for each name, and :data:`PROBLEMS_COLUMN` if any value does not fit.

    A column of mixed types has texts: texts are kept, and all other values are written as JSON.

    Args:
        rows: Rows of JSON values; missing values are null.
        names: Names of the columns.
    """
    import pyarrow

    columns, problems = {}, list[dict[str, str]]({} for _ in rows)
    for name in names:
        values = [row.get(name) for row in rows]
        array = _array(values)
        if array is None:
            array = pyarrow.array([_text(value) for value in values], pyarrow.string())
            for found, value in zip(problems, values, strict=True):
                if value is not None and not _is_plain_text(value):
                    found[name] = misfit(name, value)
        columns[name] = array
    for found, row in zip(problems, rows, strict=True):
        found.update(row.get(PROBLEMS_COLUMN) or {})
    return columns if not any(problems) else {**columns, PROBLEMS_COLUMN: problems_array(problems)}


def fitted_column(
    values: Sequence[Any], kind: "pyarrow.DataType", name: str, problems: Sequence[dict[str, str]]
) -> "pyarrow.Array":
    """Return a column of a known type; in a column of texts, other values are written as JSON.

    Args:
        values: JSON values.
        kind: Type of the column; values of another type become null.
        name: Name of the column.
        problems: Problems of each row, to which values that do not fit are added.
    """
    import pyarrow

    if kind != pyarrow.string() or all(value is None or _is_plain_text(value) for value in values):
        try:
            return pyarrow.array(values, kind)
        except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
            pass

    def fit(value: Any, found: dict[str, str]) -> Any:
        if value is None or (kind == pyarrow.string() and _is_plain_text(value)):
            return value
        if kind == pyarrow.string():
            found[name] = misfit(name, value)
            return _text(value)
        try:
            return pyarrow.scalar(value, kind).as_py()
        except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
            found[name] = misfit(name, value)
            return None

    return pyarrow.array([fit(*pair) for pair in zip(values, problems, strict=True)], kind)


def problems_array(problems: Sequence[Mapping[str, str]]) -> "pyarrow.Array":
    """Return the problems of rows as :data:`PROBLEMS_COLUMN`."""
    import pyarrow

    return pyarrow.array([json.dumps(found) if found else None for found in problems], pyarrow.string())


def misfit(column: str, value: Any) -> str:
    """Return the sentence about a value that does not fit its column."""
    return f"column {column!r} holds {_NAMES.get(type(value), type(value).__name__)}"


def is_deep(value: Any) -> bool:
    """Return whether lists and objects are nested too deeply for a column."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item for item in level if isinstance(item, (list, dict))]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _array(values: Sequence[Any]) -> "pyarrow.Array | None":
    """Return a column of the common type of the values; None if they have no common type."""
    import pyarrow

    if any(isinstance(value, (list, dict)) and is_deep(value) for value in values):
        return None
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
        return None


def _is_plain_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str | None:
    if value is None or _is_plain_text(value):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return "…"
