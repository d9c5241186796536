"""The global batch of a run: as many samples per update on any number of devices."""

import dataclasses
import logging

from flax_distil.core.errors import InputError
from flax_distil.distillation.config import DistillConfig
from flax_distil.parallel.partitioner import Partitioner

log = logging.getLogger(__name__)


def global_batch_size(config: DistillConfig, partitioner: Partitioner) -> int:
    """Return the number of samples of an update, of all devices and micro-batches."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return rows * partitioner.batch_shards


def keep_global_batch(config: DistillConfig, partitioner: Partitioner, size: int) -> DistillConfig:
    """Return the configuration with which these devices compute updates of ``size`` samples.

    A device gets at most as many samples at a time as it was configured to, and the others in further
    micro-batches.

    Args:
        config: Configuration of the run.
        partitioner: The devices.
        size: Number of samples of an update of the run that is resumed.

    Raises:
        InputError: If the samples cannot be divided over the devices.
    """
    if global_batch_size(config, partitioner) == size:
        return config
    rows, remainder = divmod(size, partitioner.batch_shards)
    if remainder:
        fitting = [str(count) for count in range(1, size + 1) if size % count == 0]
        shown = ", ".join(fitting if len(fitting) <= 12 else [*fitting[:11], f"… {fitting[-1]}"])
        raise InputError(
            f"cannot resume: an update of this run has {size} samples, which cannot be divided over "
            f"{partitioner.batch_shards} devices that share the batch: resume it on as many of them as "
            f"divide {size} ({shown}), or choose mesh so"
        )
    most = min(config.per_device_train_batch_size, rows)
    per_device = max(count for count in range(1, most + 1) if rows % count == 0)
    log.info(
        "the updates of this run have %d samples: on %d devices that share the batch this takes "
        "per_device_train_batch_size %d and gradient_accumulation_steps %d",
        size, partitioner.batch_shards, per_device, rows // per_device,
    )  # fmt: skip
    return dataclasses.replace(
        config, per_device_train_batch_size=per_device, gradient_accumulation_steps=rows // per_device
    )
