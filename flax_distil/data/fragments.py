"""Recordings that are parts of longer files; their paths end with a temporal media fragment.

``talk.flac#t=12.5,17.25`` is the part of ``talk.flac`` between these seconds, as in W3C Media Fragments URI
1.0, section 4.2.1. Manifests with columns of offsets are read as such paths.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flax_distil.core.errors import InputError

START_COLUMNS = ("offset", "start_time", "begin_time")
"""Columns of the start of a recording in its file, in seconds; the first one is that of NeMo."""

END_COLUMN = "end_time"
"""Column of the end of a recording in its file; without it, the end follows from the duration."""

_FRAGMENT = re.compile(r"#t=([0-9.e+-]+)(?:,([0-9.e+-]+))?$")


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A part of a recording.

    Attributes:
        start: Start in seconds.
        end: End in seconds; None for the end of the recording.
    """

    start: float
    end: float | None = None

    def __str__(self) -> str:
        return f"#t={self.start!r}" + ("" if self.end is None else f",{self.end!r}")

    @property
    def seconds(self) -> float | None:
        """Length in seconds; None where only the file tells it."""
        return None if self.end is None else self.end - self.start


def split_fragment(path: str) -> tuple[str, str]:
    """Return a path or address without its media fragment, and the fragment as text, which may be empty."""
    match = _FRAGMENT.search(path)
    return (path[: match.start()], match[0]) if match else (path, "")


def parse_fragment(path: str) -> tuple[str, Fragment | None]:
    """Return a path or address without its media fragment, and the parsed fragment.

    Raises:
        ValueError: If its times are not in order.
    """
    match = _FRAGMENT.search(path)
    if match is None:
        return path, None
    start = seconds(match[1])
    end = None if match[2] is None else seconds(match[2])
    if start is None or (match[2] is not None and (end is None or end <= start)):
        raise ValueError(f"{match[0]!r} names no part of a recording")
    return path[: match.start()], Fragment(start=start, end=end)


def seconds(value: Any) -> float | None:
    """Return a time or duration in seconds; None if the value is no number, negative or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def fragment_columns(columns: Sequence[str], origin: str) -> tuple[str | None, str | None]:
    """Return the columns of a manifest with the starts and ends of recordings; None where there is none.

    Raises:
        InputError: If there is a column of ends, and none of starts.
    """
    start = next((name for name in START_COLUMNS if name in columns), None)
    end = END_COLUMN if END_COLUMN in columns else None
    if start is None and end is not None:
        raise InputError(
            f"{origin} has a column {end!r} and none of {', '.join(START_COLUMNS)}: "
            "add where its recordings begin, or take the column out if the files are cut already"
        )
    return start, end


def row_fragment(
    row: Mapping[str, Any], start: str | None, end: str | None, duration: str
) -> Fragment | None:
    """Return the part of the file that a row of a manifest describes; None for the whole file.

    Args:
        row: Values of the row by column.
        start: Column of the start; None if there is none.
        end: Column of the end; None if there is none.
        duration: Column of the duration.

    Raises:
        ValueError: If a value is not a time, or the end is not after the start; the message is a sentence.
    """
    if start is None or _missing(row.get(start)):
        return None

    def read(column: str | None) -> float | None:
        value = None if column is None else row.get(column)
        if _missing(value):
            return None
        found = seconds(value)
        if found is None:
            raise ValueError(f"column {column!r} holds {str(value)[:40]!r}, which is not a time in seconds")
        return found

    begins, ends, length = read(start), read(end), read(duration)
    assert begins is not None
    if ends is None and length is not None:
        ends = begins + length
    if ends is not None and ends <= begins:
        raise ValueError(f"the recording ends at {ends:g} s, not behind its beginning at {begins:g} s")
    return Fragment(start=begins, end=ends)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
