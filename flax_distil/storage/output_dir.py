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
from collections.abc import Iterator, Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path

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
)
"""Names, of which at least one is in every folder that a command of this package wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output.

    Attributes:
        output_dir: Folder of the results.
        overwrite_output_dir: Replace the results of an earlier run in output_dir; other files stay.
    """

    output_dir: str | None
    overwrite_output_dir: bool = False

    @property
    def path(self) -> Path:
        """``output_dir`` as an absolute path.

        Raises:
            InputError: If it is not given.
        """
        if self.output_dir is None:
            raise InputError("output_dir is not given: name a folder")
        return user_path(self.output_dir).absolute()

    def check(self) -> Path:
        """Check the folder as :func:`check_output_dir` does, and return it."""
        return check_output_dir(str(self.output_dir or self.path), overwrite=self.overwrite_output_dir)


def check_output_dir(output_dir: str, *, overwrite: bool, or_set: str = "overwrite_output_dir") -> Path:
    """Check that a folder may receive results, and return it as an absolute path.

    Args:
        output_dir: The path as the user gave it.
        overwrite: Value of the user's ``overwrite_output_dir``.
        or_set: Flags that allow a folder that is not empty, for the message.

    Raises:
        InputError: If it is a file, cannot be written to, is not empty and ``overwrite`` is not set, or holds
            only files that no command of this package wrote.
    """
    folder = check_writable(output_dir)
    taken = folder.is_dir() and any(folder.iterdir())
    if taken and not overwrite:
        raise InputError(f"output_dir {output_dir!r} is not empty: choose another, or set {or_set}")
    if taken and not any((folder / mark).exists() for mark in _MARKS):
        raise InputError(
            f"output_dir {output_dir!r} holds files not written by flax-distil and is not overwritten: "
            "choose another"
        )
    return folder


def check_writable(output_dir: str) -> Path:
    """Check that a folder can be written to, and return it as an absolute path; its contents do not matter.

    Raises:
        InputError: If it is a file or cannot be written to.
    """
    if not output_dir:
        raise InputError("output_dir is empty: name a folder")
    if output_dir == "-":
        raise InputError("output_dir '-' is standard output, and results are files: name a folder")
    check_local("output_dir", output_dir)
    folder = user_path(output_dir).absolute()
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


def check_local(name: str, path: str) -> None:
    """Raise ``InputError`` if an output is an address rather than a path.

    Args:
        name: Name of the flag.
        path: The path as the user gave it.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise InputError(
            f"{name} {path!r} is an address, and results are written to this machine only: name a folder "
            "here, and copy it afterwards"
        )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; an existing folder is left as it is.

    Raises:
        InputError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(folder, error) from error


@contextlib.contextmanager
def atomic_folder(folder: Path, *, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty scratch folder, whose contents move to ``folder`` once the body succeeds.

    A new folder appears as a whole. In an existing folder, entries of the same name are replaced, and entries
    that match ``stale`` are removed, because they are parts of an earlier result. All others stay, so naming
    the wrong folder by mistake cannot empty it.

    Args:
        folder: The result of :func:`check_output_dir`.
        stale: Patterns of names, in the form of ``Path.glob``.

    Raises:
        InputError: If the folder cannot be created.
    """
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


def _cannot_be_made(folder: Path, error: OSError | ValueError) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"output_dir {str(folder)!r} cannot be made: {reason}")


def _replace_entries(stage: Path, folder: Path, stale: Sequence[str]) -> None:
    names = {entry.name for entry in stage.iterdir()}
    for name in sorted(names):
        os.replace(stage / name, folder / name)
    for pattern in stale:
        for path in folder.glob(pattern):
            if path.name not in names:
                path.unlink()
