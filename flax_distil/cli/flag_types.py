"""Convert values of flags, from the command line or from a file, to the types of their settings."""

import json
import re
import typing
from typing import Any

from flax_distil.cli.flag_values import LARGEST, shortened
from flax_distil.core.errors import InputError
from flax_distil.core.nested import type_options

WORDS = {"true": True, "yes": True, "false": False, "no": False}
"""Accepted spellings of true and false."""

METAVARS = {int: "N", float: "X", str: "TEXT", bool: "{true,false}", dict: "JSON"}
"""Placeholders of values in ``--help``."""

EXPECTED = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a JSON object",
}
"""Descriptions of expected values in error messages."""

_NUMBER = re.compile(r"[+-]?(\d[\d_]*)?\.?\d[\d_]*\.?([eE][+-]?\d+)?")
_NULL = "null"


def convert(name: str, value: Any, hint: Any) -> Any:
    """Convert a value to the type of its setting.

    Args:
        name: Name of the flag.
        value: Text (a list of texts where several values follow a flag), or the value in a file of flags.
        hint: Type of the setting: a type, a list or tuple of one, or a union of these and None.

    Raises:
        InputError: If the value cannot be converted to the type.
    """
    if value is None or value == [_NULL]:
        return _null(name, hint)
    if not is_list(hint):
        return _scalar(name, value, hint)
    kind = next(part for part in type_options(hint) if is_list(part))
    parts = value if isinstance(value, list) else [value]
    return typing.get_origin(kind)(_scalar(name, part, typing.get_args(kind)[0]) for part in parts)


def is_list(hint: Any) -> bool:
    """Return whether a setting has several values."""
    return any(typing.get_origin(option) in (list, tuple) for option in type_options(hint))


def metavar(hint: Any) -> str:
    """Return the placeholder of a value in ``--help``."""
    kind = next(option for option in type_options(hint) if option is not type(None))
    if is_list(hint):
        kind = typing.get_args(kind)[0]
    return METAVARS.get(typing.get_origin(kind) or kind, "VALUE")


def shown_default(value: Any) -> str:
    """Return a default as it is written in a file of flags; an empty text for null and empty texts."""
    if value is None or value == [_NULL]:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _null(name: str, hint: Any) -> None:
    if type(None) not in type_options(hint):
        raise InputError(f"--{name} cannot be null: leave it out for its default")


def _without_none(hint: Any) -> list[Any]:
    return [typing.get_origin(option) or option for option in type_options(hint) if option is not type(None)]


def _scalar(name: str, value: Any, hint: Any) -> Any:
    kinds = _without_none(hint)
    if value == _NULL and type(None) in type_options(hint):
        return None
    for kind in kinds:
        try:
            return _as_kind(value, kind, hint)
        except (TypeError, ValueError, OverflowError, RecursionError):
            continue
    wanted = " or ".join(EXPECTED.get(kind, str(kind)) for kind in kinds)
    raise InputError(f"--{name} cannot be {shortened(str(value))!r}: expected {wanted}")


def _as_kind(value: Any, kind: type, hint: Any) -> Any:
    """Convert a value to one type, or raise ``TypeError`` or ``ValueError``."""
    if isinstance(value, str):
        return _parse(value, kind, hint)
    if kind is float and type(value) is int:
        return float(value) if abs(value) <= LARGEST else value
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    return _checked_object(value, hint) if kind is dict else value


def _parse(text: str, kind: type, hint: Any) -> Any:
    """Convert a text to a type; numbers may be written as in YAML (``1_000``, ``0x10``, ``1e-4``)."""
    if kind is bool:
        if text.lower() not in WORDS:
            raise ValueError(text)
        return WORDS[text.lower()]
    if kind is int:
        return int(text, 0)
    if kind is float:
        if not _NUMBER.fullmatch(text.strip()):
            raise ValueError(text)
        return float(text)
    return _checked_object(json.loads(text), hint) if kind is dict else text


def _checked_object(value: Any, hint: Any) -> dict[str, Any]:
    """Return a JSON object whose values are of the type that the setting declares."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    arguments = next(typing.get_args(part) for part in type_options(hint) if typing.get_origin(part) is dict)
    return {str(key): _as_kind(part, arguments[1], arguments[1]) for key, part in value.items()}
