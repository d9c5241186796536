"""Copies of folders in buckets on this machine, read in parallel."""

import contextlib
import fnmatch
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flax_distil.storage import bucket_path
from flax_distil.storage.bucket_path import THREADS, BucketPath
from flax_distil.storage.paths import AnyPath
from flax_distil.storage.remote_files import BLOCK_BYTES
from flax_distil.storage.transports import TAGS, FileSystemTransport


def folder_identity(folder: BucketPath, patterns: Sequence[str]) -> str:
    """Return a text that changes when files directly in a folder change: a digest of what the bucket tells.

    Raises:
        SourceError: If the bucket cannot be asked.
    """
    return _identity(_matching(folder, patterns))


def cached_copy(folder: BucketPath, patterns: Sequence[str], cache_dir: Path | None = None) -> Path:
    """Return a local folder with the files directly in a folder of a bucket that match one of the patterns.

    It is kept, and found again as long as the files in the bucket are the same.

    Args:
        folder: Folder in the bucket.
        patterns: Patterns of names.
        cache_dir: Folder of such copies; by default ``flax_distil/buckets`` in the user's cache folder. It
            may be deleted at any time.

    Raises:
        SourceError: If the bucket cannot be read.
        OSError: If the disk is full.
    """
    files = _matching(folder, patterns)
    parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flax_distil" / "buckets"
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    local = (cache_dir or parent) / f"{name}-{_identity(files)}"
    local.mkdir(parents=True, exist_ok=True)
    _download(folder, {name: info for name, info in files.items() if not (local / name).is_file()}, local)
    return local


@contextlib.contextmanager
def local_copy(folder: AnyPath, *, subfolders: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a local folder with the files directly in a folder: itself, or a temporary copy of a bucket's.

    Args:
        folder: The folder.
        subfolders: Names of subfolders whose files are copied too, to any depth.
    """
    if isinstance(folder, Path):
        yield folder
        return
    files = _matching(folder, ["*"])
    for name in subfolders:
        files |= {f"{name}/{file}": info for file, info in (folder / name).files().items()}
    with tempfile.TemporaryDirectory(prefix="flax-distil-") as local:
        _download(folder, files, Path(local))
        yield Path(local)


def _matching(folder: BucketPath, patterns: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = folder.files(deep=False)
    return {
        name: info
        for name, info in found.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def _identity(files: Mapping[str, Mapping[str, Any]]) -> str:
    known = [(name, info["size"], [str(info.get(tag)) for tag in TAGS]) for name, info in files.items()]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _download(folder: BucketPath, files: Mapping[str, Mapping[str, Any]], local: Path) -> None:
    """Write files of a bucket into a local folder, each of which gets its name when it is complete."""
    with ThreadPoolExecutor(THREADS) as pool:
        for name, info in files.items():
            target, size = local / name, int(info["size"])
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(f".writing-{os.getpid()}-{target.name}")
            transport = FileSystemTransport(str(folder / name))
            with scratch.open("wb") as file:

                def copy(start: int, file: Any = file, transport: FileSystemTransport = transport) -> None:
                    policy = bucket_path.POLICY
                    part = policy.run(
                        lambda: transport.fetch(start, start + BLOCK_BYTES, seconds=policy.read_seconds),
                        url=transport.url,
                    )
                    os.pwrite(file.fileno(), part.data, start)

                list(pool.map(copy, range(0, size, BLOCK_BYTES)))
            os.replace(scratch, target)
