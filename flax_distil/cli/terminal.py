"""Output of commands: to terminals of any encoding, to readers that stop reading, and without secrets."""

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from flax_distil.core.secrets import without_secrets

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters with which a text could command the terminal."""

_CURSOR_UP = re.compile(r"(\x1b\[A)+")
"""What a progress bar writes, as one text, to return to its line."""


def harmless(text: str) -> str:
    """Return a text without secrets, and with its control characters written out; line ends stay."""
    if _CURSOR_UP.fullmatch(text):
        return text
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], without_secrets(text))


class ForgivingStream:
    """A text stream on which writing never fails because of its reader.

    Characters that the encoding lacks are replaced, and texts are made :func:`harmless`. When the reader has
    closed the stream (``| head -1``),
    further output is discarded and the command continues. A full disk is still an error.
    """

    def __init__(self, stream: Any):
        """Wrap a stream.

        Args:
            stream: A text stream, such as ``sys.stdout``.
        """
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        shown = harmless(text)
        try:
            self._stream.write(shown)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            self._leave()
        return len(text)

    def flush(self) -> None:
        """Flush the text that was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def _leave(self) -> None:
        """Discard buffered and further output, also the output that Python flushes at its end."""
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Replace standard output and standard error by streams that never end a command."""
    sys.excepthook = _show_traceback
    out, errors = ForgivingStream(sys.stdout), ForgivingStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            errors.flush()


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of an error that ends the program, which may quote secrets."""
    sys.stderr.write(harmless("".join(traceback.format_exception(kind, error, trace))))
