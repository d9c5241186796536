"""Output folders: checked before any work, and never left half written."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flax_distil.core import InputError

_MARKS = ("results.json", "dataset_info.json", "model.safetensors", "model.safetensors.index.json")
"""One of these is in every folder that a command here wrote."""


def check_output_dir(output_dir: str, *, overwrite: bool) -> Path:
    """Return the folder as a path.

    Raises:
        InputError: if it is a file, holds something and ``overwrite`` is not set, or holds
            something that no command here wrote: replacing it would lose a stranger's files.
    """
    folder = Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {output_dir!r} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(
            f"output_dir {output_dir!r} is not empty: choose another, or set overwrite_output_dir"
        )
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / mark).exists() for mark in _MARKS):
        raise InputError(
            f"output_dir {output_dir!r} holds files not written by flax-distil and is not replaced: "
            "choose another"
        )
    return folder


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` that takes its place once the body succeeds."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"output_dir {str(folder)!r} cannot be made: {error.strerror}") from error
    try:
        yield scratch
        if folder.exists():
            shutil.rmtree(folder)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
