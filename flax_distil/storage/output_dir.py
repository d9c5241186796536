"""Folders of results: they are checked before any work, and never left half written.

``overwrite_output_dir`` means the same in every command: the results of an earlier run of the
command are replaced, and every other file in the folder stays.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import AnyPath, output_path, upload_folder
from flax_distil.storage.run_lock import LOCK_NAME

_MARKS = (
    "results.json",
    "dataset_info.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "metrics.jsonl",
    "throughput.json",
    ".labelling",
    "predictions/settings.json",
    "report.json",
    "export.json",
)
"""Names, of which at least one is in every folder that a command of this package wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output.

    Attributes:
        output_dir: Folder of the results, here or in a bucket (gs://bucket/folder, s3://bucket/folder).
        overwrite_output_dir: Replace the results of an earlier run in output_dir; other files stay.
    """

    output_dir: str | None
    overwrite_output_dir: bool = False

    @property
    def path(self) -> AnyPath:
        """``output_dir`` as an absolute path, or as an address in a bucket.

        Raises:
            InputError: If it is not given, or an address of another kind.
        """
        if self.output_dir is None:
            raise InputError("output_dir is not given: name a folder")
        return output_path(self.output_dir)

    def check(self) -> AnyPath:
        """Check the folder as :func:`check_output_dir` does, and return it."""
        return check_output_dir(str(self.output_dir or self.path), overwrite=self.overwrite_output_dir)


def check_output_dir(output_dir: str, *, overwrite: bool, or_set: str = "overwrite_output_dir") -> AnyPath:
    """Check that a folder may receive results, and return it as an absolute path or address.

    Args:
        output_dir: The path as the user gave it.
        overwrite: Value of the user's ``overwrite_output_dir``.
        or_set: Flags that allow a folder that is not empty, for the message.

    Raises:
        InputError: If it is a file, cannot be written to, is not empty and ``overwrite`` is not set, or holds
            only files that no command of this package wrote.
    """
    folder = check_writable(output_dir)
    taken = folder.is_dir() and any(path.name != LOCK_NAME for path in folder.iterdir())
    if taken and not overwrite:
        raise InputError(f"output_dir {output_dir!r} is not empty: choose another, or set {or_set}")
    if taken and not any((folder / mark).exists() for mark in _MARKS):
        raise InputError(
            f"output_dir {output_dir!r} holds files not written by flax-distil and is not overwritten: "
            "choose another"
        )
    return folder


def check_writable(output_dir: str) -> AnyPath:
    """Check that a folder can be written to, and return it as an absolute path or an address in a bucket.

    Its contents do not matter.

    Raises:
        InputError: If it is a file, cannot be written to, or is an address of another kind.
    """
    if not output_dir:
        raise InputError("output_dir is empty: name a folder")
    if output_dir == "-":
        raise InputError("output_dir '-' is standard output, and results are files: name a folder")
    folder = output_path(output_dir)
    if isinstance(folder, BucketPath):
        return _check_bucket(folder)
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, ValueError) as error:  # a name that is too long, or holds NUL
        raise _cannot_be_made(folder, error) from error
    if not existing.is_dir():
        raise InputError(f"output_dir {output_dir!r} cannot be made: {str(existing)!r} is a file")
    # It is checked now rather than after hours of work.
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"output_dir {output_dir!r} cannot be made: {str(existing)!r} may not be written to")
    return folder


def _check_bucket(folder: BucketPath) -> BucketPath:
    """Check that an object can be written in a folder of a bucket and deleted again."""
    if folder.is_file():
        raise InputError(f"output_dir {str(folder)!r} cannot be made: it is a file")
    trial = folder / f".writable-{uuid.uuid4().hex}"
    trial.write_bytes(b"")
    trial.unlink(missing_ok=True)
    return folder


def check_local(name: str, path: str) -> None:
    """Raise ``InputError`` if an output is an address rather than a path.

    Args:
        name: Name of the flag.
        path: The path as the user gave it.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise InputError(
            f"{name} {path!r} is an address, and this is written to this machine only: name a path here, and "
            "copy it afterwards"
        )


def make_folder(folder: AnyPath) -> None:
    """Create a folder and its parents; an existing folder is left as it is, and buckets need none.

    Raises:
        InputError: If it cannot be created.
    """
    if isinstance(folder, BucketPath):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(folder, error) from error


@contextlib.contextmanager
def atomic_folder(folder: AnyPath, *, stale: Sequence[str] = (), last: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty local scratch folder, whose contents move to ``folder`` once the body succeeds.

    A new folder appears as a whole; in a bucket file by file. In an existing folder, entries of the same name
    are replaced, and entries that match ``stale`` are removed, because they are parts of an earlier result.
    All others stay, so naming the wrong folder by mistake cannot empty it.

    Args:
        folder: The result of :func:`check_output_dir`.
        stale: Patterns of names, in the form of ``Path.glob``.
        last: Names of files without which the result is not complete; a bucket has them last.

    Raises:
        InputError: If the folder cannot be created.
        StorageError: If the bucket cannot be written to.
    """
    if isinstance(folder, BucketPath):
        with local_results(folder, stale=stale, last=last) as local:
            yield local
        return
    exists = folder.is_dir()
    make_folder(folder.parent)
    try:
        # An existing folder holds its own scratch folder, because its parent may be on another file system.
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder if exists else folder.parent))
    except OSError as error:
        raise _cannot_be_made(folder, error) from error
    try:
        stage = scratch / "complete"  # not the scratch folder itself, which only its owner may read
        stage.mkdir()
        yield stage
        if exists:
            _replace_entries(stage, folder, stale)
        else:
            os.replace(stage, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def local_results(folder: AnyPath, *, stale: Sequence[str] = (), last: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a local folder itself, or a scratch folder that is uploaded to a bucket once the body succeeds.

    Args:
        folder: Folder of the results.
        stale: Patterns of names in the bucket that are removed unless they are uploaded.
        last: Names of files without which the result is not complete; a bucket has them last.

    Raises:
        StorageError: If the bucket cannot be written to.
    """
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="flax-distil-") as scratch:
        yield Path(scratch)
        upload_folder(Path(scratch), folder, last=last)
        _remove_stale(folder, stale, _names_below(Path(scratch)))


def _cannot_be_made(folder: Path, error: OSError | ValueError) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"output_dir {str(folder)!r} cannot be made: {reason}")


def _replace_entries(stage: Path, folder: Path, stale: Sequence[str]) -> None:
    names = _names_below(stage)
    _move_entries(stage, folder)
    _remove_stale(folder, stale, names)


def _move_entries(stage: Path, folder: Path) -> None:
    """Move what a folder holds into another one; a folder that is in both is not replaced but filled."""
    for entry in sorted(stage.iterdir()):
        if entry.is_dir() and (folder / entry.name).is_dir():
            _move_entries(entry, folder / entry.name)
        else:
            os.replace(entry, folder / entry.name)


def _names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _remove_stale(folder: AnyPath, stale: Sequence[str], names: Collection[str]) -> None:
    for pattern in stale:
        for path in folder.glob(pattern):
            if str(path).removeprefix(str(folder)).strip(os.sep) not in names:
                path.unlink()
