"""Load checkpoints into the memory of the host, from which devices only receive their own pieces."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from jax.typing import DTypeLike

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_params import BRANCHES


def load_on_cpu(
    source: str | ModelSource,
    *,
    dtype: DTypeLike = jnp.float32,
    without_encoder: bool = False,
    branches: Collection[str] = BRANCHES,
) -> Checkpoint:
    """Read a checkpoint into the memory of the host, on the first CPU device.

    The arguments are those of ``load_checkpoint``.

    Raises:
        InputError: If ``load_checkpoint`` raises it.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may name only the accelerator
        host = jax.local_devices()[0]
    return load_checkpoint(
        source,
        dtype=dtype,
        sharding=lambda path: SingleDeviceSharding(host),
        without_encoder=without_encoder,
        branches=branches,
    )
