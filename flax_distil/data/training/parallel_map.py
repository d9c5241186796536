"""A function over an endless, ordered stream, in several threads, with an exact position."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grain

T = TypeVar("T")


def ordered_map(
    function: Callable[[Any], T], items: Iterable[Any], *, threads: int, ahead: int
) -> Iterator[T]:
    """Yield the results for items in their order, made in threads; only so many items are taken ahead.

    Args:
        function: Called in any thread.
        items: Read in the thread that asks for results.
        threads: How many; 0 calls the function in the reader's own.
        ahead: Results made before they are asked for.
    """
    if not threads:
        yield from map(function, items)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > max(ahead, threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class ParallelMap(grain.DatasetIterator[T]):
    """Applies a function to what a parent gives, in order; results of None are left out.

    Args:
        parent: The stream; only one thread reads it, and it never ends.
        function: Called in any thread.
        threads: How many; 0 calls it in the reader's own.
        ahead: Results made before they are asked for.
    """

    def __init__(
        self,
        parent: grain.DatasetIterator[Any],
        function: Callable[[Any], T | None],
        *,
        threads: int,
        ahead: int,
    ):
        super().__init__(parent)
        self._function, self._ahead = function, max(ahead, threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads else None
        self._waiting: deque[tuple[Future[T | None], dict[str, Any]]] = deque()
        self._state = parent.get_state()

    def __next__(self) -> T:
        while True:
            result = self._next_result()
            if result is not None:
                return result

    def get_state(self) -> dict[str, Any]:
        """Return the parent's position behind the element of the last result."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue behind that element."""
        self._drop_waiting()
        self._parent.set_state(state)
        self._state = state

    def close(self) -> None:
        """Stop the threads."""
        self._drop_waiting()
        if self._pool is not None:
            self._pool.shutdown()
        super().close()

    def _next_result(self) -> T | None:
        if self._pool is None:
            result = self._function(next(self._parent))
            self._state = self._parent.get_state()
            return result
        while len(self._waiting) < self._ahead:
            element = next(self._parent)
            self._waiting.append((self._pool.submit(self._function, element), self._parent.get_state()))
        future, self._state = self._waiting.popleft()
        return future.result()

    def _drop_waiting(self) -> None:
        for future, _ in self._waiting:
            future.cancel()
        self._waiting.clear()
