"""The longest labels of a run compiled at its start: what has no room is known then, not hours later."""

import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core.errors import InputError
from flax_distil.distillation.config import DistilConfig
from flax_distil.distillation.setup.models import DistilModels
from flax_distil.distillation.step_fns import TrainStepFns
from flax_distil.distillation.train_state import TrainState
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import Partitioner

log = logging.getLogger(__name__)

_GIB = 2**30
_BATCHES_HELD = 3
"""Batches on the devices at one time: of the step that runs, of the next, and one on its way."""


def describe_step_batch(
    config: DistilConfig, student: WhisperConfig, rows: int, tokens: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Describe what ``BatchFeeder`` feeds: so many rows per micro-batch, labels of so many tokens."""
    leading = (config.gradient_accumulation_steps, rows)
    batch = {
        "decoder_input_ids_KBT": jax.ShapeDtypeStruct((*leading, tokens), jnp.int32),
        "labels_KBT": jax.ShapeDtypeStruct((*leading, tokens), jnp.int32),
        "loss_mask_KBT": jax.ShapeDtypeStruct((*leading, tokens), jnp.bool_),
    }
    if config.cache_encoder_states:
        states = (*leading, student.max_source_positions, student.d_model)
        return batch | {"encoder_out_KBSD": jax.ShapeDtypeStruct(states, jnp.bfloat16)}
    if config.augmentation.on_device:
        batch |= {
            "lengths_KB": jax.ShapeDtypeStruct(leading, jnp.int32),
            "seed_KB": jax.ShapeDtypeStruct(leading, jnp.uint32),
        }
    samples = (*leading, student.window_samples)
    return batch | {"samples_KBW": jax.ShapeDtypeStruct(samples, jnp.int16)}


def compile_largest(
    config: DistilConfig,
    models: DistilModels,
    programs: TrainStepFns,
    partitioner: Partitioner,
    state: TrainState,
    *,
    tokens: int,
) -> None:
    """Compile the training step for the longest labels, and check that a device has room for it.

    Raises:
        InputError: if it has not, with what it needs and what can be done.
    """
    start = time.perf_counter()
    rows = config.per_device_train_batch_size * partitioner.local_batch_shards
    described = describe_step_batch(config, models.student.config, rows, tokens)
    batch = partitioner.put_batch(
        {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in described.items()}
    )
    try:
        compiled = programs.train.compile(state, models.frozen, models.teacher_params, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _no_room(config, tokens, str(error).splitlines()[0]) from error
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in batch.values())
    needed = _bytes_beside(compiled) + _BATCHES_HELD * held
    log.info(
        "compiled the training step for labels of up to %d tokens in %.1f s: beside weights and state, a "
        "device needs %.2f GiB for it",
        tokens, time.perf_counter() - start, needed / _GIB,
    )  # fmt: skip
    free = _free_bytes(jax.local_devices()[0])
    if free is not None and needed > free + held:
        raise _no_room(config, tokens, f"{needed / _GIB:.2f} GiB are needed and {free / _GIB:.2f} are free")


def _bytes_beside(compiled: jax.stages.Compiled) -> int:
    """Return what a step needs on a device beside its arguments."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    return int(found.temp_size_in_bytes + outputs + found.generated_code_size_in_bytes)


def _free_bytes(device: Any) -> int | None:
    """Return how much a device can still allocate; None where it does not say, as a CPU."""
    found = device.memory_stats() or {}
    limit, used = found.get("bytes_limit"), found.get("bytes_in_use")
    return None if limit is None or used is None else int(limit) - int(used)


def _no_room(config: DistilConfig, tokens: int, why: str) -> InputError:
    return InputError(
        f"a training step with labels of {tokens} tokens, the longest there can be, has no room on a device "
        f"({why}): lower per_device_train_batch_size {config.per_device_train_batch_size} (and raise "
        "gradient_accumulation_steps), set gradient_checkpointing, or lower max_label_length"
    )
