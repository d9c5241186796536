"""The training step is compiled before its first batch comes.

It is compiled for the longest labels first, so a lack of memory is known at once. On accelerators it is then
compiled for shorter labels too, in a thread while training runs; otherwise the first batch of each length
would stop the loop for the minutes of a compilation.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core.errors import InputError
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.config import DistillConfig
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import MICRO_BATCHES, Partitioner

log = logging.getLogger(__name__)

_GIB = 2**30
_BATCHES_HELD = 3
"""Batches on the devices at one time: of the step that runs, of the next, and one on its way."""


def describe_step_batch(config: DistillConfig, student: WhisperConfig, rows: int, tokens: int) -> Batch:
    """Describe what a step takes: so many rows per micro-batch, labels of so many tokens."""

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.gradient_accumulation_steps, rows, *shape), dtype)

    labels: dict[str, Any] = {
        "decoder_input_ids_BT": array(jnp.int32, tokens),
        "labels_BT": array(jnp.int32, tokens),
        "loss_mask_BT": array(jnp.bool_, tokens),
    }
    if config.data.has_kl_weights:
        labels["kl_weight_B"] = array(jnp.float32)
    if config.cache_encoder_states:
        shape = student.max_source_positions, student.d_model
        return Batch(**labels, encoder_out_BSD=array(jnp.bfloat16, *shape))
    drawn: dict[str, Any] = {}
    if config.data.augmentation.on_device:
        drawn = {"lengths_B": array(jnp.int32), "seed_B": array(jnp.uint32)}
    return Batch(**labels, **drawn, samples_BW=array(jnp.int16, student.window_samples))


def empty_batch(
    config: DistillConfig, student: WhisperConfig, partitioner: Partitioner, tokens: int
) -> Batch:
    """Return a batch of zeros on the devices, with labels of so many tokens."""
    rows = config.per_device_train_batch_size * partitioner.local_batch_shards
    described = describe_step_batch(config, student, rows, tokens)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), described)
    sent: Batch = partitioner.put_batch(zeros, MICRO_BATCHES)
    return sent


class ShorterSteps:
    """Compiles steps in a thread, and lets the training loop wait for the one that it needs next.

    JAX runs what was compiled from a lowered step where the step is called with the same shapes.

    Args:
        lowered: Lowered steps by the length of their labels, in the order in which they are compiled.
    """

    def __init__(self, lowered: Mapping[int, jax.stages.Lowered]):
        self._lowered = lowered
        self._done = {tokens: threading.Event() for tokens in lowered}
        self._is_closed = False
        if lowered:
            threading.Thread(target=self._compile, name="compile-ahead", daemon=True).start()

    def wait(self, tokens: int) -> None:
        """Return when the step for labels of so many tokens is compiled, or will not be compiled here."""
        if tokens in self._done:
            self._done[tokens].wait()

    def close(self) -> None:
        """Begin no further compilation; one that runs goes on in its thread."""
        self._is_closed = True

    def _compile(self) -> None:
        for tokens, step in self._lowered.items():
            try:
                if not self._is_closed:
                    step.compile()
            except Exception as error:  # the loop meets it again when it calls the step
                log.warning(
                    "the step for labels of up to %d tokens was not compiled ahead: %s", tokens, error
                )
            finally:
                self._done[tokens].set()


@contextlib.contextmanager
def memory_errors_explained(config: DistillConfig, tokens: int) -> Iterator[None]:
    """Turn the compiler's error about memory into one that says what can be done.

    Raises:
        InputError: If the compiler finds no room for the step.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _no_room(config, tokens, str(error).splitlines()[0]) from error


def check_memory(
    config: DistillConfig, compiled: jax.stages.Compiled, batch: Batch, tokens: int, *, seconds: float
) -> None:
    """Check that a device has room for a training step, and log what it needs.

    Args:
        config: Configuration of the run.
        compiled: The training step for ``batch``.
        batch: Arrays on the devices.
        tokens: Length of its labels.
        seconds: Time that the compilation took.

    Raises:
        InputError: If there is not enough memory, with what is needed and what can be done.
    """
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(batch))
    needed = _bytes_beside(compiled) + _BATCHES_HELD * held
    log.info(
        "compiled the training step for labels of up to %d tokens in %.1f s: beside weights and state, a "
        "device needs %.2f GiB for it",
        tokens, seconds, needed / _GIB,
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


def _no_room(config: DistillConfig, tokens: int, why: str) -> InputError:
    return InputError(
        f"a training step with labels of {tokens} tokens, the longest there can be, has no room on a device "
        f"({why}): lower per_device_train_batch_size {config.per_device_train_batch_size} (and raise "
        "gradient_accumulation_steps), set gradient_checkpointing, or lower max_label_length"
    )
