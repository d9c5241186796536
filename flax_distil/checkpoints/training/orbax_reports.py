"""Failed saves and reads are told in a sentence, so what Orbax reports about them itself is left out."""

import contextlib
import functools
import gc
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def untold_failures() -> Iterator[None]:
    """Leave out, meanwhile, the tracebacks that Orbax logs, and reports of what it was doing as it failed.

    Where a leaf cannot be written or read, Orbax closes its event loop while others still are, and Python
    reports each of them.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(_is_told)
    sys.unraisablehook = functools.partial(_report, hook)
    try:
        yield
    finally:
        gc.collect(1)  # what was dropped lately is reported when it is deleted
        sys.unraisablehook = hook
        logger.removeFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _report(hook: Callable[[Any], None], unraisable: Any) -> None:
    code = getattr(unraisable.object, "cr_code", None)
    if "Event loop is closed" not in str(unraisable.exc_value) and not (
        code is not None and "orbax" in code.co_filename
    ):
        hook(unraisable)
