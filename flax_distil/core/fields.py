"""Check the fields of a parsed document against a table of expected kinds, and report what is wrong."""

import dataclasses
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from flax_distil.core.errors import InputError


class Fault(NamedTuple):
    """A fault inside a value.

    Attributes:
        location: Path from the value to the fault, such as ``[3].id``; empty if it is the value itself.
        value: The faulty value.
        expected: What was expected instead, in words.
    """

    location: str
    value: Any
    expected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of values, with a function that checks a value.

    Attributes:
        expected: Description for messages: ``a whole number from 1 to 1500``.
        accepts: Function that tells whether a value has no fault.
        fault: Function that returns the first fault of a value; None if there is none.
    """

    expected: str
    accepts: Callable[[Any], bool]
    fault: Callable[[Any], Fault | None]


_MOST_FAULTS = 5  # that one message names

Fields = Mapping[str, Kind]
"""The table of a document: name of each field to the kind of its value."""


def kind_of(expected: str, accepts: Callable[[Any], bool]) -> Kind:
    """Return the kind of values for which a function returns True."""
    return Kind(
        expected=expected,
        accepts=accepts,
        fault=lambda value: None if accepts(value) else Fault("", value, expected),
    )


def whole_number(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from ``low`` to ``high``, both included; booleans are not numbers."""
    return kind_of(
        f"a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def fraction() -> Kind:
    """Return the kind of numbers from 0 to below 1, such as dropout rates."""
    return kind_of(
        "a number from 0 to below 1",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1,
    )


def one_of(*values: Any) -> Kind:
    """Return the kind of the given values; their types matter too (1 is not true)."""
    return kind_of(
        " or ".join(map(short_repr, values)),
        lambda value: any(type(value) is type(known) and value == known for known in values),
    )


def of_type(kind: type, words: str) -> Kind:
    """Return the kind of all values of a Python type."""
    return kind_of(words, lambda value: isinstance(value, kind))


def list_of(item: Kind, *, length: int | None = None) -> Kind:
    """Return the kind of lists of a given length whose items are all of one kind."""
    count = "values" if length is None else f"{length} values"
    return _container(
        f"a list of {count}, each {item.expected}",
        lambda value: isinstance(value, list | tuple) and length in (None, len(value)),
        lambda value: ((f"[{index}]", item, entry) for index, entry in enumerate(value)),
        lambda value: all(map(item.accepts, value)),
    )


def map_to(item: Kind) -> Kind:
    """Return the kind of objects whose values are all of one kind."""
    return _container(
        f"an object of values, each {item.expected}",
        lambda value: isinstance(value, Mapping),
        lambda value: ((f"[{short_repr(key)}]", item, entry) for key, entry in value.items()),
        lambda value: all(map(item.accepts, value.values())),
    )


def object_with(fields: Mapping[str, Kind]) -> Kind:
    """Return the kind of objects that have all of the given fields, each of its kind."""
    return _container(
        "an object with " + ", ".join(f"{name} ({kind.expected})" for name, kind in fields.items()),
        lambda value: isinstance(value, Mapping) and fields.keys() <= value.keys(),
        lambda value: ((f".{name}", kind, value[name]) for name, kind in fields.items()),
        lambda value: all(kind.accepts(value[name]) for name, kind in fields.items()),
    )


def _container(
    expected: str,
    is_one: Callable[[Any], bool],
    parts: Callable[[Any], Iterable[tuple[str, Kind, Any]]],
    accepts_parts: Callable[[Any], bool],
) -> Kind:
    """Return the kind of values with parts, which are looked at one by one only if one has a fault."""
    return Kind(
        expected=expected,
        accepts=lambda value: is_one(value) and accepts_parts(value),
        fault=lambda value: (
            Fault("", value, expected)
            if not is_one(value)
            else None
            if accepts_parts(value)
            else _first_fault(parts(value))
        ),
    )


def either(*kinds: Kind) -> Kind:
    """Return the kind of values that are of any of the given kinds."""
    return kind_of(
        ", or ".join(kind.expected for kind in kinds),
        lambda value: any(kind.accepts(value) for kind in kinds),
    )


def _first_fault(parts: Iterable[tuple[str, Kind, Any]]) -> Fault | None:
    for location, kind, value in parts:
        inner = kind.fault(value)
        if inner is not None:
            return inner._replace(location=location + inner.location)
    return None


def check_fields(
    document: Mapping[str, Any], fields: Fields, *, name: str, required: Collection[str] = ()
) -> None:
    """Check the fields of a document that are in its table; other fields are ignored, null counts as absent.

    Args:
        document: The parsed document.
        fields: The table of its fields.
        name: Name of the document in messages.
        required: Names of fields that must be present.

    Raises:
        InputError: If fields are missing or have a wrong value. The message names them, with their values and
            what was expected.
    """
    missing = [field for field in required if document.get(field) is None]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}: fetch it again")
    found = {
        field: fault
        for field, kind in fields.items()
        if document.get(field) is not None and (fault := kind.fault(document[field])) is not None
    }
    faults = [
        f"{field}{fault.location} {short_repr(fault.value)}: expected {fault.expected}"
        for field, fault in found.items()
    ]
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{name} has {'; '.join(faults[:_MOST_FAULTS])}{more}")


def short_repr(value: Any) -> str:
    """Return a value as text for a message, in one line of at most 80 characters."""
    return _SHORT.repr(value)[:80]


def one_line(text: str) -> str:
    """Return a name from a file for a message, with unprintable characters escaped and long names cut."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:200])


class _ShortRepr(reprlib.Repr):
    """Writes true, false and null as JSON does, and cuts long values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict = 2, 4, 3
        self.maxstring = self.maxlong = self.maxother = 40

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_SHORT = _ShortRepr()
