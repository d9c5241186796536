"""Parameters of a checkpoint that was just saved, read by one process while training goes on."""

import os
import shutil
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.training.checkpoint_reader import CheckpointReader
from flax_distil.checkpoints.training.training_checkpoints import CHECKPOINTS_NAME, checkpoint_name
from flax_distil.storage.paths import AnyPath


def checkpoint_folder(run: AnyPath, step: int) -> str:
    """Return the path or address of the checkpoint of a step in the folder of a run."""
    return str(run / CHECKPOINTS_NAME / checkpoint_name(step))


def link_checkpoint(run: Path, step: int, folder: Path) -> Path:
    """Keep a checkpoint under a second name, so that it stays when training deletes it.

    Its files are linked, which takes no room, or copied where the file system has no links.

    Args:
        run: Folder of the run.
        step: Step of the checkpoint.
        folder: Folder, on the same disk, in which the checkpoint is found as in that of the run.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: If the checkpoint is not there, or the disk is full.
    """
    target = folder / CHECKPOINTS_NAME / checkpoint_name(step)
    shutil.copytree(checkpoint_folder(run, step), target, copy_function=_link)
    return target


def read_params(folder: str | Path) -> dict[str, Any]:
    """Read the parameters of a checkpoint into the memory of the host; other processes take no part.

    Args:
        folder: Path or address of the checkpoint.

    Raises:
        DamagedCheckpoint: If it is not what was saved.
        InputError: If it cannot be read.
    """
    from etils import epath

    reader = CheckpointReader(epath.Path(folder), alone=True)
    return reader.branch("params", reader.record())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
