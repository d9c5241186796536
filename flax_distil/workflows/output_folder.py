"""Folders of results: checked before any work, filled beside their place, moved there when complete."""

import contextlib
import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from flax_distil.core import InputError
from flax_distil.weights import EXPORT_DTYPES, Checkpoint, UploadError, export_checkpoint, push_to_hub

log = logging.getLogger(__name__)

_STALE_WEIGHTS = ("model*.safetensors*",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenModel:
    """A Hugging Face folder on disk.

    Attributes:
        output_dir: the folder.
        parameters: numbers in its weights.
        address: where it was uploaded to; None if it was not.
        upload_error: why the upload failed; None if it did not, or was not asked for.
    """

    output_dir: Path
    parameters: int
    address: str | None = None
    upload_error: str | None = None

    def report(self) -> str:
        """Return what to tell the user."""
        written = f"wrote {self.parameters / 1e6:.1f} M parameters to {self.output_dir}"
        return f"{written}, uploaded to {self.address}" if self.address else written


def check_output_dir(output_dir: str, *, overwrite: bool) -> Path:
    """Return the folder's path if it may be written to.

    Raises:
        InputError: if it is a file, or holds something and ``overwrite`` is not set.
    """
    if not output_dir:
        raise InputError("output_dir is empty: name a folder")
    folder = Path(output_dir).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {output_dir!r} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(
            f"output_dir {output_dir!r} is not empty: choose another, or set overwrite_output_dir"
        )
    return folder


def check_dtype(dtype: str) -> None:
    """Raise ``InputError`` unless weights can be written in this element type."""
    if dtype not in EXPORT_DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown: expected {', '.join(EXPORT_DTYPES)}")


@contextlib.contextmanager
def staged_folder(folder: Path, *, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Give an empty folder to write to, whose contents are moved to ``folder`` if all went well.

    A new folder appears as a whole. In one that exists, entries of the same name are replaced
    one by one and others stay, but for those that match ``stale``: parts of an earlier result
    that the new one does not have.

    Args:
        folder: where the contents belong.
        stale: patterns of names, as ``Path.glob`` takes them.

    Raises:
        InputError: if the folder, or one above it, cannot be made or written to.
    """
    exists = folder.is_dir()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Inside a folder that exists, since beside it may be another file system.
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder if exists else folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to output_dir {str(folder)!r}: {error.strerror}") from error
    try:
        stage = scratch / "complete"  # not the scratch folder itself: only its owner could read that
        stage.mkdir()
        yield stage
        if exists:
            _replace_entries(stage, folder, stale)
        else:
            os.replace(stage, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_model(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str,
    push: bool = False,
    repo_id: str | None = None,
    private: bool = False,
) -> WrittenModel:
    """Write a checkpoint as a Hugging Face folder and upload it if asked to.

    A failed upload is logged and reported, never raised: the folder is safe on disk.

    Args:
        checkpoint: with its weights.
        folder: of :func:`check_output_dir`.
        dtype: element type of the written weights.
        push: whether to upload.
        repo_id: repository on the Hub; by default the name of the folder.
        private: create it as a private one.
    """
    with staged_folder(folder, stale=_STALE_WEIGHTS) as stage:
        export_checkpoint(
            checkpoint.params, checkpoint.config, stage, files=checkpoint.files, dtype=jnp.dtype(dtype)
        )
    written = WrittenModel(output_dir=folder, parameters=parameter_count(checkpoint))
    if not push:
        return written
    try:
        address = push_to_hub(folder, repo_id or folder.name, private=private)
    except UploadError as error:
        log.error("%s", error)
        return dataclasses.replace(written, upload_error=str(error))
    return dataclasses.replace(written, address=address)


def parameter_count(checkpoint: Checkpoint) -> int:
    """Return how many numbers the weights hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(checkpoint.params))


def _replace_entries(stage: Path, folder: Path, stale: Sequence[str]) -> None:
    """Move every entry of ``stage`` into ``folder``, over what has its name; then remove stale ones."""
    names = {entry.name for entry in stage.iterdir()}
    for name in sorted(names):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name)
        os.replace(stage / name, folder / name)
    for pattern in stale:
        for path in folder.glob(pattern):
            if path.name not in names:
                path.unlink()
