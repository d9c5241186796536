"""Give all data sets of a command different names, for reports and logs."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

Named = TypeVar("Named", bound=Any)


def with_distinct_names(sources: Sequence[Named]) -> list[Named]:
    """Return data sets with different names, by adding numbers to repeated names.

    Args:
        sources: Data sets, which are dataclasses with a field ``name``.

    Returns:
        The data sets in the same order, with names such as ``clean``, ``clean-2``, ``clean-3``.
    """
    names = distinct_names([source.name for source in sources])
    return [dataclasses.replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def distinct_names(names: Sequence[str]) -> list[str]:
    """Add numbers to repeated names; the first occurrence of each name stays as it is."""
    found: list[str] = []
    for name in names:
        chosen, number = name, 1
        while chosen in found or (number > 1 and chosen in names):
            number += 1
            chosen = f"{name}-{number}"
        found.append(chosen)
    return found
