"""Loops that keep a device busy."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

T = TypeVar("T")


def one_ahead(started: Iterable[T]) -> Iterator[T]:
    """Yield the items of an iterable, each after the next one was taken from it.

    Where taking an item starts work on a device, and the caller waits for the work of each item it is
    given, the device has the next work before the caller waits.
    """
    for item, _ in itertools.pairwise(itertools.chain(started, [None])):
        yield cast(T, item)
