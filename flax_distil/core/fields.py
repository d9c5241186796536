"""What the fields of a document must be, as a table, and one sentence for what is not so."""

import dataclasses
import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What a value must be.

    Attributes:
        expected: in words, for the message: ``a whole number from 1 to 1500``.
        accepts: whether a value is so.
    """

    expected: str
    accepts: Callable[[Any], bool]


_MOST_FAULTS = 5  # that one message names

Fields = Mapping[str, Kind]
"""The table of a document: name of a field to what its value must be."""


def whole_number(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from ``low`` to ``high``, both included; true and false are none."""
    return Kind(
        expected=f"a whole number from {low} to {high}",
        accepts=lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def fraction() -> Kind:
    """Return the kind of numbers from 0 to below 1, of a dropout."""
    return Kind(
        expected="a number from 0 to below 1",
        accepts=lambda value: (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and 0 <= value < 1
        ),
    )


def one_of(*values: Any) -> Kind:
    """Return the kind of a few given values; the type counts too (1 is not true)."""
    return Kind(
        expected=" or ".join(map(shown, values)),
        accepts=lambda value: any(type(value) is type(known) and value == known for known in values),
    )


def of_type(kind: type, words: str) -> Kind:
    """Return the kind of all values of a Python type."""
    return Kind(expected=words, accepts=lambda value: isinstance(value, kind))


def list_of(item: Kind, *, length: int | None = None) -> Kind:
    """Return the kind of lists whose items are all of one kind, and as many as given."""
    count = "values" if length is None else f"{length} values"
    return Kind(
        expected=f"a list of {count}, each {item.expected}",
        accepts=lambda value: (
            isinstance(value, list | tuple)
            and length in (None, len(value))
            and all(item.accepts(entry) for entry in value)
        ),
    )


def map_to(item: Kind) -> Kind:
    """Return the kind of objects whose values are all of one kind."""
    return Kind(
        expected=f"an object of values, each {item.expected}",
        accepts=lambda value: isinstance(value, Mapping) and all(map(item.accepts, value.values())),
    )


def object_with(fields: Mapping[str, Kind], words: str) -> Kind:
    """Return the kind of objects that have all of some fields, each of its kind; ``words`` describe it."""
    return Kind(
        expected=words,
        accepts=lambda value: (
            isinstance(value, Mapping)
            and all(field in value and kind.accepts(value[field]) for field, kind in fields.items())
        ),
    )


def either(*kinds: Kind) -> Kind:
    """Return the kind of values that are of one of several kinds."""
    return Kind(
        expected=", or ".join(kind.expected for kind in kinds),
        accepts=lambda value: any(kind.accepts(value) for kind in kinds),
    )


def check_fields(
    document: Mapping[str, Any], fields: Fields, *, name: str, required: Collection[str] = ()
) -> None:
    """Check the fields of a document that are in its table; others are not looked at, null counts as absent.

    Args:
        document: parsed.
        fields: the table.
        name: what to call the document in messages.
        required: fields that must be there.

    Raises:
        InputError: naming the fields that are missing, or those that are not as the table has them, with
            their values and what was expected.
    """
    missing = [field for field in required if document.get(field) is None]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}: fetch it again")
    faults = [
        f"{field} {shown(value)}: expected {kind.expected}"
        for field, kind in fields.items()
        if (value := document.get(field)) is not None and not kind.accepts(value)
    ]
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{name} has {'; '.join(faults[:_MOST_FAULTS])}{more}")


def shown(value: Any) -> str:
    """Return a value for a message, in one line of at most 80 characters."""
    return _SHORT.repr(value)[:80]


def one_line(text: str) -> str:
    """Return a name from a file for a message: what cannot be printed is spelt out, what is long is cut."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:200])


class _ShortRepr(reprlib.Repr):
    """Names the three constants as JSON does, and cuts what is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict = 2, 4, 3
        self.maxstring = self.maxlong = self.maxother = 40

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_SHORT = _ShortRepr()
