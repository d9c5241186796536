"""Checkpoints in the memory of the host, from which devices get no more than their own pieces."""

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from jax.typing import DTypeLike

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource


def load_on_cpu(
    source: str | ModelSource, *, dtype: DTypeLike = jnp.float32, without_encoder: bool = False
) -> Checkpoint:
    """Read a checkpoint beside the devices; on a machine of CPUs alone, onto the first one.

    Arguments are those of ``load_checkpoint``.

    Raises:
        InputError: As ``load_checkpoint``.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may name the accelerator alone
        host = jax.local_devices()[0]
    return load_checkpoint(
        source, dtype=dtype, sharding=lambda path: SingleDeviceSharding(host), without_encoder=without_encoder
    )
