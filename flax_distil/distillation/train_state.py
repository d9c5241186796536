"""What changes while training, told apart from what does not."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Params
from flax_distil.core.tree import flatten, partition
from flax_distil.distillation.training_config import FreezeConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a training step changes, and all that a checkpoint holds.

    Attributes:
        step: Optimizer updates done, int32 [] (its shape alone where a state is abstract).
        params: Trainable leaves of the student only, float32.
        opt_state: Moments of exactly those leaves.
    """

    step: Any
    params: Params
    opt_state: optax.OptState


def partition_params(params: Params, freezing: FreezeConfig) -> tuple[Params, Params]:
    """Split a student's tree into trainable and frozen leaves."""
    return partition(params, freezing.is_trainable)


def init_state(trainable: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Return step 0: float32 parameters and fresh moments for the trainable leaves.

    Raises:
        ValueError: If a trainable leaf is not float32 (masters are, in every precision).
    """
    for path, leaf in flatten(trainable).items():
        if leaf.dtype != jnp.float32:
            raise ValueError(f"trainable parameter {path} is {leaf.dtype}, expected float32")
    return TrainState(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable))
