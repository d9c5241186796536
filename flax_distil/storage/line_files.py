"""Files of lines, each of which is safe once it is written.

A killed process may leave an incomplete last line, which is not read, and is removed before the next line is
written.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from flax_distil.storage.background_upload import BackgroundUpload
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.local_files import sync_folder
from flax_distil.storage.output_dir import make_folder
from flax_distil.storage.paths import AnyPath

Writing = Callable[[AnyPath], contextlib.AbstractContextManager[None]]
"""Returns a context that raises a sentence for the user if a file cannot be written."""


class LineWriter:
    """Appends lines to a file that no other process writes.

    Args:
        path: The file; its folder is made.
        writing: Context in which the file is written.
        is_synced: Whether a line must be safe once it is written: on a disk, from a power failure; in a
            bucket, from a kill of the process. A bucket otherwise has the line a few seconds later.

    Raises:
        InputError: If the file cannot be written.
    """

    def __init__(self, path: AnyPath, writing: Writing, *, is_synced: bool = False):
        self._path, self._writing = path, writing
        make_folder(path.parent)
        with writing(path):
            self._lines: _LocalLines | _BucketLines
            if isinstance(path, BucketPath):
                self._lines = _BucketLines(path, is_synced=is_synced)
            else:
                self._lines = _LocalLines(path, is_synced=is_synced)

    def __enter__(self) -> "LineWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing(self._path):
            self._lines.close()

    def write(self, *lines: str) -> None:
        """Append lines in one operation.

        Raises:
            InputError: If the disk is full, or the bucket cannot be written to.
        """
        with self._writing(self._path):
            self._lines.append("".join(f"{line}\n" for line in lines).encode())


class _LocalLines:
    """A local file, to which lines are appended."""

    def __init__(self, path: Path, *, is_synced: bool):
        self._is_synced = is_synced
        if path.is_file():
            os.truncate(path, len(_whole_lines(path)))
        self._file = path.open("ab", buffering=0)
        if is_synced:
            sync_folder(path.parent)

    def append(self, data: bytes) -> None:
        if self._file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._is_synced:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _BucketLines:
    """An object in a bucket, which is replaced by one with more lines."""

    def __init__(self, path: BucketPath, *, is_synced: bool):
        self._path, self._lock = path, threading.Lock()
        try:
            self._data = bytearray(_whole_lines(path))
        except FileNotFoundError:
            self._data = bytearray()
        self._written = len(self._data)
        self._uploads = None if is_synced else BackgroundUpload(self._upload, name=f"upload of {path.name}")

    def append(self, data: bytes) -> None:
        with self._lock:
            self._data += data
        if self._uploads is None:
            self._upload()
        else:
            self._uploads.changed()

    def close(self) -> None:
        if self._uploads is not None:
            self._uploads.close()

    def _upload(self) -> None:
        with self._lock:
            data = bytes(self._data)
        if len(data) > self._written:
            self._path.write_bytes(data)
            self._written = len(data)


def read_lines(path: AnyPath) -> list[str]:
    """Return the complete lines of a file of :class:`LineWriter`."""
    return _whole_lines(path).decode().split("\n")[:-1]


def _whole_lines(path: AnyPath) -> bytes:
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]
