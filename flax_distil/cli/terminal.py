"""What a command says, to whatever reads it: terminals of any encoding, and readers that leave."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class ForgivingStream:
    """A text stream to which writing never fails for what its reader is.

    A character that its encoding lacks is replaced. When the reader is gone (``| head -1``), what is written
    from then on goes nowhere, and the work that is told of goes on. A disk that is full is an error still.
    """

    def __init__(self, stream: Any):
        """Wrap a stream.

        Args:
            stream: Of text, such as ``sys.stdout``.
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
        """Send what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def _leave(self) -> None:
        """Have what is still held, and what comes, go nowhere: also what is flushed when Python ends."""
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Let nothing that is shown end a command."""
    out, errors = ForgivingStream(sys.stdout), ForgivingStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            errors.flush()
