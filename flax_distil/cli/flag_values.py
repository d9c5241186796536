"""What no flag can be, whatever it means: numbers that no machine holds, text that nothing can name."""

import math
import re
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import check_local

LARGEST = 2**63 - 1
"""The largest whole number that arrays and files can be addressed by."""

NAMES = (
    r"_dir$|_name_or_path$|(dataset|split|config)_name$|(?<!^label)_column_name$|_model_id$|^json$|"
    r"^topology$|^mesh$|_address$"
)
"""Flags that name something, which an empty text does not; no column of labels is a choice of its own."""

WRITTEN = r"_dir$|^json$"
"""Flags that name what is written to."""

PATHS = r"^files$|_dir$|_name_or_path$|dataset_name$|^json$"
"""Flags that may hold bytes that are no UTF-8, as names of files do."""


def check_value(name: str, value: Any) -> None:
    """Raise ``InputError`` for a value that cannot be meant, of whatever flag.

    Args:
        name: Of the flag.
        value: As it was read; each part of a list is checked.
    """
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, bool):
            continue
        if isinstance(part, int) and abs(part) > LARGEST:
            raise InputError(f"{name} {shortened(str(part))} is out of range: expected at most {LARGEST}")
        if isinstance(part, float) and not math.isfinite(part):
            raise InputError(f"{name} {part} is no finite number")
        if isinstance(part, str):
            _check_text(name, part)
            if re.search(WRITTEN, name):
                check_local(name, part)


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{name} {shortened(text)!r} holds a NUL character: leave it out")
    if not text and re.search(NAMES, name):
        raise InputError(f"{name} is empty: name something, or leave the flag out")
    if not re.search(PATHS, name) and not text.isascii() and _is_broken(text):
        raise InputError(f"{name} {shortened(text)!r} is not UTF-8: write it again in UTF-8")


def _is_broken(text: str) -> bool:
    return any(0xD800 <= ord(character) < 0xE000 for character in text)


def shortened(text: str, *, most: int = 80) -> str:
    """Return a text of at most so many characters, with its middle left out where it is longer."""
    if len(text) <= most:
        return text
    kept = (most - 1) // 2
    return f"{text[:kept]}…{text[-kept:]}"
