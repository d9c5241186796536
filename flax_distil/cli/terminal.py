"""Output of commands to terminals of any encoding, and to readers that stop reading."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class ForgivingStream:
    """A text stream on which writing never fails because of its reader.

    Characters that the encoding lacks are replaced. When the reader has closed the stream (``| head -1``),
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
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
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
    out, errors = ForgivingStream(sys.stdout), ForgivingStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            errors.flush()
