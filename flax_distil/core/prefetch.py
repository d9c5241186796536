"""Start work before its result is needed; results keep their order, and the work ahead is bounded."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


def lookahead(items: Iterable[T], size: int = 1) -> Iterator[T]:
    """Yield items, each one after the next ``size`` items were taken from the iterable.

    This helps where taking an item starts work on a device or in a thread: the next work is then already
        started when the caller waits for the work of the item that it received.
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > size:
            yield waiting.popleft()
    yield from waiting


def prefetch_map(function: Callable[[T], U], items: Iterable[T], *, threads: int, ahead: int) -> Generator[U]:
    """Yield the results of a function for all items, in their order; they are computed in threads.

    Closing the generator cancels what is not started and waits for the rest.

    Args:
        function: Function that is called in any thread. Its exceptions are raised where its result is asked
            for.
        items: Items, which are read in the thread that asks for results.
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
    """Yield the items of an iterator that runs in its own thread.

    Closing the generator waits for the thread and closes the iterator.

    Args:
        items: The iterator. Its exceptions are raised where the next item is asked for.
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
