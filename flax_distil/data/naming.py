"""Give each data set of a run a name of its own, for reports and logs."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

Named = TypeVar("Named", bound=Any)


def with_distinct_names(sources: Sequence[Named]) -> list[Named]:
    """Return data sets whose names are all different: those that come again are numbered.

    Args:
        sources: Dataclasses with a field ``name``.

    Returns:
        As many, in the same order, called ``clean``, ``clean-2``, ``clean-3``.
    """
    names = distinct_names([source.name for source in sources])
    return [dataclasses.replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def distinct_names(names: Sequence[str]) -> list[str]:
    """Number the names that come again; the first of each stays as it is."""
    found: list[str] = []
    for name in names:
        chosen, number = name, 1
        while chosen in found or (number > 1 and chosen in names):
            number += 1
            chosen = f"{name}-{number}"
        found.append(chosen)
    return found
