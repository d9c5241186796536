"""On-policy distillation: in a share of the steps the student writes the decoder input itself.

::

    label      sot  notimestamps  text of the label  eot       the rest is padding
    on policy  sot  notimestamps  what the student samples, until it ends or the row is full

The teacher then reads what the student wrote, and the loss compares both at each of its tokens. A student
that is trained on labels alone never meets its own errors before it is used.

Source: GKD, arXiv 2306.13649, algorithm 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Int, Params
from flax_distil.data.training.batches import Batch
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs
from flax_distil.distillation.forward import encode
from flax_distil.distillation.step_config import StepConfig
from flax_distil.model.assembly import bind_decoder
from flax_distil.text.special_tokens import SpecialTokens

Texts = dict[str, Array]
"""Decoder inputs, labels and mask, by their names in ``Batch``."""

_CHOICE, _SAMPLES = 1, 2
"""What random numbers of a step are for."""


def is_on_policy(config: StepConfig, step: Int[Array, ""]) -> Bool[Array, ""]:
    """Say whether the student writes the decoder input in a step; the same on all devices and in all runs."""
    assert config.on_policy is not None
    return jax.random.uniform(_key(config, step, _CHOICE)) < config.on_policy.lmbda


def on_policy_batch(
    config: StepConfig,
    student: Params,
    teacher: Params,
    batch: Batch,
    step: Int[Array, ""],
    prepare: Callable[[Batch, Any], Batch],
    *,
    trains_encoder: bool,
) -> Batch:
    """Return the micro-batches of a step, on policy with what the student writes in the place of the labels.

    A frozen encoder that both models share runs once, for the samples and for the loss; its outputs for all
    micro-batches are then held at one time. Any other encoder runs once more in a step on policy.

    Args:
        config: The static part of the step.
        student: All weights of the student.
        teacher: ``{"decoder": …}``, with ``"encoder"`` where it is not shared.
        batch: K micro-batches on this device, [K, B, …].
        step: Number of updates done before.
        prepare: Makes log-mel frames of the samples of a micro-batch, given its number.
        trains_encoder: Whether the student's encoder is trained.
    """
    options = config.student_options if trains_encoder else config.teacher_options
    numbers = jnp.arange(batch.labels_BT.shape[0])

    def encoded(part: tuple[Batch, Array]) -> Array:
        if part[0].encoder_out_BSD is not None:
            return part[0].encoder_out_BSD
        return encode(config.student, options, student["encoder"], prepare(*part).mel_BRM)

    if batch.encoder_out_BSD is None and not trains_encoder and "encoder" not in teacher:
        states = jax.lax.map(encoded, (batch, numbers))
        batch = dataclasses.replace(
            batch, samples_BW=None, lengths_B=None, seed_B=None, mel_BRM=None, encoder_out_BSD=states
        )

    def write(batch: Batch) -> Texts:
        def of_micro_batch(part: tuple[Batch, Array]) -> Texts:
            states, first = encoded(part), _first_row(config, part[0], part[1])
            heard = dataclasses.replace(part[0], encoder_out_BSD=states)
            return _texts(sampled_batch(config, student["decoder"], heard, step, first))

        written: Texts = jax.lax.map(of_micro_batch, (batch, numbers))
        return written

    texts = jax.lax.cond(is_on_policy(config, step), write, _texts, batch)
    return dataclasses.replace(batch, **texts)


def sampled_batch(
    config: StepConfig, decoder: Params, batch: Batch, step: Int[Array, ""], first_row: Int[Array, ""] | int
) -> Batch:
    """Return a micro-batch with what the student writes in the place of the labels.

    The student samples behind the prompt of each label: the previous text, and all of
    ``<|startoftranscript|>``, language, task and ``<|notimestamps|>`` that the label has. A row is as long as
    the labels of the batch are padded to. Only the tokens that were written count in the loss; a row whose
    label does not count stays as it is.

    Args:
        config: The static part of the step.
        decoder: Weights of the student's decoder; no gradient reaches them.
        batch: With ``encoder_out_BSD``, and the inputs and the mask of the labels.
        step: Number of updates done before.
        first_row: Number of the first row among those of the global batch: what a row becomes depends on its
            own number, and not on the layout of the devices.
    """
    assert config.on_policy is not None
    inputs_BT, special = batch.decoder_input_ids_BT, config.on_policy.special
    rows, length = inputs_BT.shape
    prompt_length_B = prompt_lengths(inputs_BT, special)
    has_label_B = batch.loss_mask_BT.any(axis=1)
    limit_B = jnp.where(has_label_B, length - prompt_length_B, 0)
    key, number_B = _key(config, step, _SAMPLES), first_row + jnp.arange(rows)
    seed_B = jax.vmap(lambda number: jax.random.randint(jax.random.fold_in(key, number), (), 0, 2**31 - 1))(
        number_B
    )
    temperature = config.on_policy.temperature
    output = generate(
        bind_decoder(config.student, config.student_options, jax.lax.stop_gradient(decoder)),
        GenerateInputs(
            encoder_out_BSD=batch.encoder_out_BSD,
            prompt_BP=inputs_BT[:, : length - 1],
            prompt_length_B=jnp.minimum(prompt_length_B, length - 1),
            limit_B=limit_B,
            temperature_B=jnp.full(rows, temperature, jnp.float32) if temperature else None,
            seed_B=seed_B if temperature else None,
        ),
        processors=LogitsProcessors(special=special),
        options=SearchOptions(),
        max_new_tokens=length - 1,
    )
    position_T = jnp.arange(length + 1)
    behind_BT = position_T - prompt_length_B[:, None]
    written_BT = jnp.take_along_axis(output.tokens_BT, jnp.clip(behind_BT, 0, length - 2), axis=1)
    ending_BT = jnp.pad(inputs_BT, ((0, 0), (0, 1)), constant_values=special.eot)
    tokens_BT = jnp.where(
        behind_BT < 0, ending_BT, jnp.where(behind_BT < length - 1, written_BT, special.eot)
    )
    written_B = jnp.minimum(output.length_B + 1, limit_B)  # with the end of text, where there was room for it
    return dataclasses.replace(
        batch,
        decoder_input_ids_BT=jnp.where(has_label_B[:, None], tokens_BT[:, :-1], inputs_BT),
        labels_BT=jnp.where(has_label_B[:, None], tokens_BT[:, 1:], batch.labels_BT),
        loss_mask_BT=(behind_BT[:, 1:] >= 0) & (behind_BT[:, 1:] < written_B[:, None]),
    )


def prompt_lengths(inputs_BT: Int[Array, "B T"], special: SpecialTokens) -> Int[Array, " B"]:
    """Return how many inputs come before the text: up to the last token that is neither text nor time."""
    is_mark_BT = (inputs_BT > special.eot) & (inputs_BT < special.timestamp_begin)
    return jnp.where(is_mark_BT, jnp.arange(1, inputs_BT.shape[1] + 1), 0).max(axis=1)


def _texts(batch: Batch) -> Texts:
    names = ("decoder_input_ids_BT", "labels_BT", "loss_mask_BT")
    return {name: getattr(batch, name) for name in names}


def _first_row(config: StepConfig, batch: Batch, number: Int[Array, ""]) -> Int[Array, ""]:
    """Return the number, among the rows of the global batch, of the first row of a micro-batch here."""
    if config.batch_axes:
        own = jax.lax.axis_index(config.batch_axes)
        number = number * jax.lax.psum(1, config.batch_axes) + own
    return number * batch.labels_BT.shape[0]


def _key(config: StepConfig, step: Int[Array, ""], use: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), step), use)
