"""Files and folders of results, on this machine or in a bucket."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.storage import local_files
from flax_distil.storage.bucket_path import SCHEMES, THREADS, BucketPath
from flax_distil.storage.transports import protocol_of

AnyPath = Path | BucketPath
"""A file or folder of results; both types have the methods that :class:`BucketPath` took from ``pathlib``."""


def output_path(name: str | AnyPath, *, flag: str = "output_dir") -> AnyPath:
    """Return where results are written: an absolute path, or an address in a bucket.

    Args:
        name: A path or an address, as the user gave it.
        flag: Name of the flag, for messages.

    Raises:
        InputError: If it is an address of another kind.
    """
    if isinstance(name, BucketPath):
        return name
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(name))
    if found is None:
        return user_path(name).absolute()
    if protocol_of(str(name)) not in SCHEMES:
        raise InputError(
            f"{flag} {str(name)!r} is an address that results are not written to: name a folder here, or one "
            "in a bucket (gs://bucket/folder or s3://bucket/folder)"
        )
    if odd := re.search(r"[*?\[\]{}#\x00-\x1f]", str(name)):
        raise InputError(
            f"{flag} {str(name)!r} holds {odd[0]!r}, a wildcard of tools for buckets: leave it out"
        )
    try:
        return BucketPath(str(name))
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error


def write_whole(path: AnyPath, content: str | bytes, *, patience_seconds: float | None = None) -> None:
    """Write a file whole, or leave the existing file unchanged.

    Args:
        path: Path of the file; a local one is in an existing folder.
        content: Bytes, or text, which is written as UTF-8 with ``\\n`` at the ends of lines.

    Raises:
        OSError: If it cannot be written.
        StorageError: If it cannot be written to a bucket.
    """
    if isinstance(path, BucketPath):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        local_files.write_whole(path, content)


def ensure_file(path: AnyPath) -> None:
    """Make an empty file if there is none."""
    if isinstance(path, Path):
        path.touch()
    elif not path.is_file():
        path.write_bytes(b"")


def read_text(path: AnyPath) -> str:
    """Return the contents of a text file.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return path.read_text(encoding="utf-8")


def publish(scratch: Path, path: AnyPath) -> None:
    """Give a local scratch file its final name, once it is safe on the disk, or move it to a bucket.

    Raises:
        OSError: If the disk is full.
        StorageError: If it cannot be written to the bucket.
    """
    if isinstance(path, BucketPath):
        path.upload(scratch)
        scratch.unlink()
    else:
        local_files.publish(scratch, path)


@contextlib.contextmanager
def scratch_folder(folder: AnyPath) -> Iterator[Path]:
    """Yield a folder for scratch files of results in ``folder``: itself, or a temporary one for a bucket."""
    if isinstance(folder, Path):
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="flax-distil-") as local:
            yield Path(local)


def matching(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """Return what matches a pattern below a folder, sorted."""
    return sorted(folder.glob(pattern), key=str)


def file_sizes(folder: AnyPath) -> dict[str, int]:
    """Return the number of bytes of all files below a folder, by their names relative to it."""
    if isinstance(folder, BucketPath):
        return {name: int(info["size"]) for name, info in folder.files().items()}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def remove_tree(path: AnyPath) -> None:
    """Delete a folder with everything in it; there may be none."""
    if isinstance(path, BucketPath):
        path.remove_tree()
    else:
        shutil.rmtree(path, ignore_errors=True)


def upload_folder(local: Path, folder: BucketPath, *, last: Iterable[str] = ()) -> None:
    """Upload all files below a local folder.

    Args:
        local: The local folder.
        folder: Folder in the bucket; files of the same names are replaced.
        last: Names of the files that make the result complete. They are deleted first and uploaded last, so
            that a result of which only a part was uploaded is not taken for a complete one.

    Raises:
        StorageError: If a file cannot be written.
    """
    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    ends = [name for name in last if name in names]
    with ThreadPoolExecutor(THREADS) as pool:
        for name in ends:
            (folder / name).unlink(missing_ok=True)
        list(pool.map(lambda name: (folder / name).upload(local / name), [n for n in names if n not in ends]))
    for name in ends:
        (folder / name).upload(local / name)
