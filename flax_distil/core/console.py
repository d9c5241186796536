"""Print the results of commands to standard output, unless a caller asked for quiet."""

import contextlib
import contextvars
from collections.abc import Iterator

_QUIET = contextvars.ContextVar("quiet", default=False)


def show(text: str, *, end: str = "\n") -> None:
    """Print a result for who started the command; nothing while it is to be quiet.

    Args:
        text: One or several lines.
        end: What follows it.
    """
    if not _QUIET.get():
        print(text, end=end, flush=True)


def is_quiet() -> bool:
    """Return whether nothing is to be shown."""
    return _QUIET.get()


@contextlib.contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Show nothing within the context.

    Args:
        on: False changes nothing.
    """
    before = _QUIET.set(on or _QUIET.get())
    try:
        yield
    finally:
        _QUIET.reset(before)
