"""The global batch of a run: as many samples per update on any number of devices."""

import dataclasses
import logging

from flax_distil.checkpoints.training.training_checkpoints import CHECKPOINTS_NAME, TrainingCheckpoints
from flax_distil.core.errors import InputError
from flax_distil.distillation.config import DistillConfig
from flax_distil.parallel.processes import all_gather_object
from flax_distil.storage.paths import AnyPath

log = logging.getLogger(__name__)


def global_batch_size(config: DistillConfig, batch_shards: int) -> int:
    """Return the number of samples of an update: of all parts of the batch, and of all micro-batches."""
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * batch_shards


def choose_global_batch(config: DistillConfig, batch_shards: int, folder: AnyPath) -> DistillConfig:
    """Return the configuration with which these devices compute the global batch of a run.

    All processes must call this. The batch is that of the run which is resumed, or else
    ``global_batch_size``; where neither is given, the configuration stays as it is.

    Args:
        config: Configuration of the run.
        batch_shards: Number of parts into which the devices divide the global batch.
        folder: Folder of the run.

    Raises:
        InputError: If there is no such checkpoint, its batch is not the ``global_batch_size``, or the batch
            cannot be divided over the devices.
    """
    given, resumed = config.global_batch_size, _resumed_size(config, folder)
    if given is not None and resumed not in (None, given):
        raise InputError(
            f"global_batch_size {given} is not that of the run to resume: leave it out, or give {resumed}"
        )
    size = resumed if given is None else given
    return config if size is None else divide_global_batch(config, batch_shards, size)


def _resumed_size(config: DistillConfig, folder: AnyPath) -> int | None:
    """Return the number of samples per update of the run that is resumed; None for a new run."""
    wanted = config.checkpoints.resume_from_checkpoint
    place = folder / CHECKPOINTS_NAME
    if wanted is None or not all_gather_object(place.is_dir())[0]:
        return None
    with TrainingCheckpoints(place, read_only=True) as checkpoints:
        if wanted == "auto" and not checkpoints.steps():
            return None
        position = checkpoints.read_data(None if wanted in ("latest", "auto") else int(wanted))
    size: int | None = position.get("pipeline", {}).get("global_batch_size")
    return size


def divide_global_batch(config: DistillConfig, batch_shards: int, size: int) -> DistillConfig:
    """Return the configuration with which these devices compute updates of ``size`` samples.

    A device gets at most as many samples at a time as it was configured to, and the others in further
    micro-batches.

    Args:
        config: Configuration of the run.
        batch_shards: Number of parts into which the devices divide the global batch.
        size: Number of samples of an update.

    Raises:
        InputError: If the samples cannot be divided over the devices.
    """
    if global_batch_size(config, batch_shards) == size:
        return config
    rows, remainder = divmod(size, batch_shards)
    if remainder:
        fitting = [str(count) for count in range(1, size + 1) if size % count == 0]
        shown = ", ".join(fitting if len(fitting) <= 12 else [*fitting[:11], f"… {fitting[-1]}"])
        raise InputError(
            f"an update of this run has {size} samples, which cannot be divided over {batch_shards} devices "
            f"that share the batch: run it on as many of them as divide {size} ({shown}), or choose mesh so"
        )
    most = min(config.per_device_train_batch_size, rows)
    per_device = max(count for count in range(1, most + 1) if rows % count == 0)
    log.info(
        "the updates of this run have %d samples: on %d devices that share the batch this takes "
        "per_device_train_batch_size %d and gradient_accumulation_steps %d",
        size, batch_shards, per_device, rows // per_device,
    )  # fmt: skip
    return dataclasses.replace(
        config, per_device_train_batch_size=per_device, gradient_accumulation_steps=rows // per_device
    )
