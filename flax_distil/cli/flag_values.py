"""Refuse values that no flag can have, such as numbers that are not finite and text that is not UTF-8."""

import math
import re
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.storage.output_dir import check_local
from flax_distil.storage.paths import output_path

LARGEST = 2**63 - 1
"""Largest whole number that can address arrays and files."""

NAMES = (
    r"_dir$|_name_or_path$|(dataset|split|config)_name$|(?<!^label)_column_name$|_model_id$|^json$|"
    r"^topology$|^mesh$|_address$"
)
"""Flags that must not be empty, because they name something; an empty column of labels has a meaning."""

WRITTEN = r"_dir$|^json$"
"""Flags that name outputs."""

PATHS = r"^files$|_dir$|_name_or_path$|dataset_name$|^json$"
"""Flags whose values may have bytes that are not UTF-8, because names of files may."""


def check_value(name: str, value: Any) -> None:
    """Raise ``InputError`` for a value that no flag can have.

    Args:
        name: Name of the flag.
        value: Value of the flag; each item of a list is checked.
    """
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, bool):
            continue
        if isinstance(part, int) and abs(part) > LARGEST:
            raise InputError(f"{name} {shortened(str(part))} is out of range: expected at most {LARGEST}")
        if isinstance(part, float) and not math.isfinite(part):
            raise InputError(f"{name} {part} is not a finite number")
        if isinstance(part, str):
            _check_text(name, part)
            if name in ("output_dir", "run_dir"):
                output_path(part, flag=name)  # here, or in a bucket
            elif re.search(WRITTEN, name):
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
    """Return a text cut to at most ``most`` characters, by leaving out its middle."""
    if len(text) <= most:
        return text
    kept = (most - 1) // 2
    return f"{text[:kept]}…{text[-kept:]}"
