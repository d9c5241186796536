"""Print the results of commands to standard output, unless a caller asked for quiet."""

import contextlib
import contextvars
from collections.abc import Iterator

_QUIET = contextvars.ContextVar("quiet", default=False)


def show(text: str, *, end: str = "\n") -> None:
    """Print a result, unless a caller asked for quiet.

    Args:
        text: One line or several lines.
        end: Text that is printed after it.
    """
    if not _QUIET.get():
        print(text, end=end, flush=True)


def is_quiet() -> bool:
    """Return whether results are not printed."""
    return _QUIET.get()


@contextlib.contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Print no results while the context is open.

    Args:
        on: Whether to be quiet; False changes nothing.
    """
    before = _QUIET.set(on or _QUIET.get())
    try:
        yield
    finally:
        _QUIET.reset(before)
