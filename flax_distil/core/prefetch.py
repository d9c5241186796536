"""Start work before its result is asked for: results come in order, and the work ahead is bounded."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


def lookahead(items: Iterable[T], size: int = 1) -> Iterator[T]:
    """Yield items, each after the next ``size`` items were taken from the iterable.

    Where taking an item starts work on a device or in a thread, and the caller waits for the work of
    each item that it gets, the next work is already started before the caller waits.
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > size:
            yield waiting.popleft()
    yield from waiting


def prefetch_map(function: Callable[[T], U], items: Iterable[T], *, threads: int, ahead: int) -> Generator[U]:
    """Yield the results of a function over items in their order, computed in threads.

    Closing the generator cancels what is not started and waits for the rest.

    Args:
        function: Called in any thread; what it raises is raised where its result is asked for.
        items: Read in the thread that asks for results.
        threads: Number of threads; 0 calls the function in the thread that asks for results.
        ahead: Number of results that are computed before they are asked for; at least the number of threads.
    """
    if not threads:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        try:
            for future in lookahead((pool.submit(function, item) for item in items), max(ahead, threads)):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def prefetch(items: Iterator[T], *, ahead: int) -> Generator[T]:
    """Yield the items of an iterator that runs in a thread of its own.

    Closing the generator waits for the thread and closes the iterator.

    Args:
        items: What it raises is raised where its next item is asked for.
        ahead: Number of items that are taken before they are asked for.
    """
    end: Any = object()
    try:
        with contextlib.closing(
            prefetch_map(lambda _: next(items, end), itertools.count(), threads=1, ahead=ahead)
        ) as taken:
            yield from itertools.takewhile(lambda item: item is not end, taken)
    finally:
        if isinstance(items, Generator):
            items.close()
