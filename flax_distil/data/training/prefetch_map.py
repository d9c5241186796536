"""``prefetch_map`` as an iterator of grain over an endless sequence, with an exact position."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import grain

from flax_distil.core.prefetch import prefetch_map

T = TypeVar("T")


class PrefetchMap(grain.DatasetIterator[T]):
    """Applies a function to the elements of a parent iterator in order.

    Args:
        parent: An endless iterator, which only one thread reads.
        function: Function that any thread may call.
        threads: Number of threads; 0 calls the function in the thread of the reader.
        ahead: Number of results that are computed before they are asked for.
    """

    def __init__(
        self,
        parent: grain.DatasetIterator[Any],
        function: Callable[[Any], T],
        *,
        threads: int,
        ahead: int,
    ):
        super().__init__(parent)
        self._function, self._threads, self._ahead = function, threads, ahead
        self._state = parent.get_state()
        self._results = self._open()

    def __next__(self) -> T:
        result, self._state = next(self._results)
        return result

    def get_state(self) -> dict[str, Any]:
        """Return the position of the parent after the element of the last result."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue at a position from :meth:`get_state`."""
        self._results.close()
        self._parent.set_state(state)
        self._state = state
        self._results = self._open()

    def close(self) -> None:
        """Stop the threads."""
        self._results.close()
        super().close()

    def _open(self) -> Generator[tuple[T, dict[str, Any]]]:
        return prefetch_map(
            lambda pair: (self._function(pair[0]), pair[1]),
            self._elements(),
            threads=self._threads,
            ahead=self._ahead,
        )

    def _elements(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield each element of the parent with the position after it."""
        while True:
            yield next(self._parent), self._parent.get_state()
