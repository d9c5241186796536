"""Local files that are written completely or not at all."""

import itertools
import os
from pathlib import Path

_NUMBERS = itertools.count()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, or leave the existing file unchanged.

    The name of the scratch file beside it is short, whatever the name of the file.

    Args:
        path: Path of the file, in an existing folder.
        content: Bytes, or text, which is written as UTF-8 with ``\\n`` at the ends of lines.

    Raises:
        OSError: If it cannot be written.
    """
    scratch = path.with_name(f".writing-{os.getpid()}-{next(_NUMBERS)}")
    try:
        with scratch.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def publish(scratch: Path, path: Path) -> None:
    """Sync a written file to the disk, move it to its final name, and sync the folder.

    Raises:
        OSError: If the disk is full.
    """
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the directory entries of a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
