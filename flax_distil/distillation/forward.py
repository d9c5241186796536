"""What student and teacher make of a batch: samples to log-mel, encoder states, hidden states."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_distil.audio.augmentation import AugmentationConfig, Talkers, augment_samples, spec_augment
from flax_distil.audio.mel import as_float, log_mel
from flax_distil.core.arrays import Array, Float, Params
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.step_config import StepConfig
from flax_distil.model.assembly import bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.model.decoder import ForwardOutput


class StudentAndTeacher(NamedTuple):
    """What the models made of a batch.

    Attributes:
        student: Output of the student's decoder.
        teacher: Output of the teacher's decoder; None without a teacher.
        student_encoder_LBSD: Output of every layer of the student's encoder, where a term of the loss reads
            layers and the teacher has an encoder of its own.
        teacher_encoder_LBSD: Output of every layer of the teacher's encoder, in the same case.
    """

    student: ForwardOutput
    teacher: ForwardOutput | None = None
    student_encoder_LBSD: Array | None = None
    teacher_encoder_LBSD: Array | None = None


def forward(
    config: StepConfig,
    student: Params,
    teacher: Params,
    batch: Batch,
    key: Array | None,
    *,
    trains_encoder: bool,
) -> StudentAndTeacher:
    """Run encoder(s) and decoders; an encoder that both share runs once.

    Args:
        config: The static part of the step.
        student: All weights of the student.
        teacher: ``{"decoder": …}``, with ``"encoder"`` where it is not shared; ``{}`` without a teacher.
        batch: With ``mel_BRM``, or ``encoder_out_BSD`` of a frozen encoder, and the inputs of the decoder.
        key: Random key of the dropouts; None for none.
        trains_encoder: Whether the student's encoder is trained; it then computes as the student does.
    """
    rates = (config.student.dropout, config.student.attention_dropout, config.student.activation_dropout)
    encoder_key, decoder_key = (None, None) if key is None or not any(rates) else jax.random.split(key)
    with_layers = config.needs_layers
    with_encoder_layers = with_layers and "encoder" in teacher
    tokens_BT = batch.decoder_input_ids_BT
    own_layers = teacher_layers = teacher_output = None
    encoder_out = batch.encoder_out_BSD
    if encoder_out is None:
        options = config.student_options if trains_encoder else config.teacher_options
        encoder = bind_encoder(config.student, options, student["encoder"])
        encoder_out, own_layers = encoder(
            batch.mel_BRM, encoder_key if trains_encoder else None, collect_layers=with_encoder_layers
        )
    decoder = bind_decoder(config.student, config.student_options, student["decoder"])
    student_output = decoder(tokens_BT, encoder_out, decoder_key, collect_layers=with_layers)
    if teacher and config.teacher is not None:
        if "encoder" in teacher:
            encoder = bind_encoder(config.teacher, config.teacher_options, teacher["encoder"])
            mel_BRM = batch.mel_BRM if batch.teacher_mel_BRM is None else batch.teacher_mel_BRM
            encoder_out, teacher_layers = encoder(mel_BRM, None, collect_layers=with_layers)
        weights = jax.lax.stop_gradient(teacher["decoder"])
        decoder = bind_decoder(config.teacher, config.teacher_options, weights)
        teacher_output = decoder(tokens_BT, encoder_out, None, collect_layers=with_layers)
    return StudentAndTeacher(student_output, teacher_output, own_layers, teacher_layers)


def encode(
    config: WhisperConfig, options: ComputeOptions, encoder: Params, mel_BRM: Float[Array, "B R M"]
) -> Float[Array, "B S D"]:
    """Run an encoder without dropout."""
    return bind_encoder(config, options, encoder)(mel_BRM)[0]


def with_features(
    step: StepConfig,
    teacher: Params,
    batch: Batch,
    augmentation: AugmentationConfig | None = None,
    talkers: Talkers | None = None,
) -> Batch:
    """Replace raw samples by log-mel frames; a batch without samples stays as it is.

    Args:
        step: The static part of the step, with both models.
        teacher: Weights of the teacher; one with an encoder of its own hears what the student hears, and
            silence behind it up to its own window.
        batch: With ``samples_BW``, of the student's window, or without; with ``lengths_B`` and ``seed_B``
            where audio is changed.
        augmentation: What is done to the audio; None where nothing is.
        talkers: The recordings that babble is made of; by default those of the batch.

    Returns:
        The batch with ``mel_BRM``, and with ``teacher_mel_BRM`` where the two windows differ.
    """
    samples_BW = batch.samples_BW
    if samples_BW is None:
        return batch
    if augmentation is not None and augmentation.on_device:
        samples_BW = as_float(samples_BW)
        samples_BW = augment_samples(augmentation, samples_BW, batch.lengths_B, batch.seed_B, talkers)
    teacher_mel_BRM = None
    if step.teacher is not None and "encoder" in teacher:
        silence = step.teacher.window_samples - step.student.window_samples
        if silence:
            padded_BW = jnp.pad(samples_BW, ((0, 0), (0, silence)))
            teacher_mel_BRM = _masked_mel(step, batch, padded_BW, augmentation)
    mel_BRM = _masked_mel(step, batch, samples_BW, augmentation)
    return dataclasses.replace(
        batch, samples_BW=None, lengths_B=None, seed_B=None, mel_BRM=mel_BRM, teacher_mel_BRM=teacher_mel_BRM
    )


def _masked_mel(
    step: StepConfig, batch: Batch, samples_BW: Array, augmentation: AugmentationConfig | None
) -> Float[Array, "B R M"]:
    """Return log-mel frames, of which those that the student hears are masked where that is asked for."""
    mel_BRM = log_mel(samples_BW, num_mel_bins=step.student.num_mel_bins)
    if augmentation is None or not augmentation.on_device:
        return mel_BRM
    heard = 2 * step.student.max_source_positions  # masks depend on how many frames there are
    masked_BRM = spec_augment(augmentation, mel_BRM[:, :heard], batch.lengths_B, batch.seed_B)
    return jnp.concatenate([masked_BRM, mel_BRM[:, heard:]], axis=1)
