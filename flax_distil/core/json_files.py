"""Read JSON from untrusted files; a file that cannot be used is refused with one clear sentence."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.fields import short_repr

MAX_JSON_BYTES = 64 * 2**20
"""Size of the largest JSON file that is read; a tokenizer of 100 000 tokens takes about a tenth of it."""

MAX_JSON_DEPTH = 64
"""Deepest nesting that is read; the files of checkpoints have fewer than ten levels."""


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, *, name: str | None = None) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if there is no such file.

    Args:
        path: Path of the file; a folder or a pipe with this name counts as absent.
        name: Name of the file in messages; by default its path.

    Raises:
        InputError: If the file cannot be read, is larger than :data:`MAX_JSON_BYTES`, or :func:`parse_json`
            refuses it.
    """
    name = name or str(path)
    contents = read_bounded(path, name=name)
    return None if contents is None else parse_json(contents, name=name)


def read_bounded(path: Path, *, name: str) -> bytes | None:
    """Return the contents of a small file; None if there is no such file.

    Raises:
        InputError: If it is larger than :data:`MAX_JSON_BYTES` or cannot be read.
    """
    if not path.is_file():
        return None
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(f"{name} has {size} bytes: expected at most {MAX_JSON_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): check the file") from error


def parse_json(contents: bytes, *, name: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        contents: Contents of the file, in UTF-8.
        name: Name of the file in messages.

    Raises:
        InputError: If the contents are not UTF-8, not an object, nested deeper than :data:`MAX_JSON_DEPTH`,
            or not JSON. Numbers that are NaN and names given twice in one object are not JSON.
    """
    try:
        document = json.loads(
            contents.decode(), parse_constant=_refuse_constant, object_pairs_hook=_object_of_pairs
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (at byte {error.start}): fetch it again") from error
    except RecursionError:
        raise _nested_too_deeply(name) from None
    except ValueError as error:
        raise InputError(f"{name} is not valid JSON ({_first_line(error)}): fetch it again") from error
    if not isinstance(document, dict):
        raise InputError(
            f"{name} is not a JSON object: expected fields in braces, got {short_repr(document)}"
        )
    if _is_deeper(document, MAX_JSON_DEPTH):
        raise _nested_too_deeply(name)
    if _SURROGATE.search(contents) and not _is_text(document):
        raise InputError(f"{name} holds half of a surrogate pair, which is not a character: fetch it again")
    return document


def _is_text(document: Any) -> bool:
    """Return whether all strings of a document can be encoded as UTF-8."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _object_of_pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has two values for {twice[:40]!r}")
    return values


def _is_deeper(document: Any, depth: int) -> bool:
    """Return whether values are nested deeper than ``depth``."""
    level = [document]
    for _ in range(depth):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _nested_too_deeply(name: str) -> InputError:
    return InputError(f"{name} nests deeper than {MAX_JSON_DEPTH} levels: fetch it again")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition("; use sys.")[0]
