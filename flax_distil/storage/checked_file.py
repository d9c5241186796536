"""Files that are read back from the disk after they were written."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Write = Callable[[bytes | np.ndarray], None]
"""Function that appends bytes, or the elements of an array, to a file."""


@contextlib.contextmanager
def checked_file(path: Path) -> Iterator[Write]:
    """Yield a function that appends to a new file, and compare the file with what was written at the end.

    Args:
        path: Path of the file, which is replaced if there is one.

    Raises:
        OSError: If the file cannot be written, or the disk does not hold what was written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(content: bytes | np.ndarray) -> None:
            data: bytes | memoryview = (
                np.ascontiguousarray(content).reshape(-1).view(np.uint8).data
                if isinstance(content, np.ndarray)
                else content
            )
            digest.update(data)
            file.write(data)

        yield write
        file.flush()
        os.fsync(file.fileno())
    _check_written(path, digest.hexdigest())


def _check_written(path: Path, digest: str) -> None:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # or else the memory that keeps the written pages would be read
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise OSError(errno.EIO, "the disk does not hold what was written", str(path))
