"""Checks of settings that several configurations share."""

import re
from typing import Any

from flax_distil.core.errors import InputError


def check_positive(config: Any, *names: str) -> None:
    """Raise ``InputError`` if one of the named settings is given and is below 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is below 1")


def parse_steps(name: str, text: str) -> tuple[int, int]:
    """Return the first and the last step of a setting ``first:last``, both counted from 1.

    Raises:
        InputError: If the text is another one.
    """
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(
            f"{name} {text!r} is not the first and the last step to record: expected such as 10:15"
        )
    return int(found[1]), int(found[2])
