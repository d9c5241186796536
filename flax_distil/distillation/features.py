"""What the encoders of a step hear: log-mel of raw samples, augmented while training."""

from collections.abc import Mapping

import jax.numpy as jnp

from flax_distil.audio.augmentation import Talkers, augment_samples, spec_augment
from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.mel import as_float, log_mel
from flax_distil.core.arrays import Array, Float, Params
from flax_distil.distillation.train_step import StepConfig


def with_features(
    step: StepConfig,
    teacher: Params,
    batch: Mapping[str, Array],
    augmentation: AugmentationConfig | None = None,
    talkers: Talkers | None = None,
) -> dict[str, Array]:
    """Replace raw samples by log-mel frames; encoder states that are kept stay as they are.

    Args:
        step: whose models hear.
        teacher: weights; with an encoder of its own, it hears what the student hears, and silence behind
            it up to its own window.
        batch: with ``samples_BW``, of the student's window, or without; with ``lengths_B`` and ``seed_B``
            where audio is changed.
        augmentation: what is done to the audio; None where nothing is.
        talkers: the recordings that babble is made of; by default those of the batch.

    Returns:
        ``mel_BRM`` and the rest of the batch, with ``teacher_mel_BRM`` where the two windows differ.
    """
    arrays = dict(batch)
    if "samples_BW" not in arrays:
        return arrays
    samples_BW = arrays.pop("samples_BW")
    drawn = None
    if augmentation is not None and augmentation.on_device:
        drawn = arrays.pop("lengths_B"), arrays.pop("seed_B")
        samples_BW = augment_samples(augmentation, as_float(samples_BW), *drawn, talkers)

    def mel(samples_BW: Array) -> Float[Array, "B R M"]:
        mel_BRM = log_mel(samples_BW, num_mel_bins=step.student.num_mel_bins)
        if augmentation is None or drawn is None:
            return mel_BRM
        heard = 2 * step.student.max_source_positions  # masks depend on how many frames there are
        masked_BRM = spec_augment(augmentation, mel_BRM[:, :heard], *drawn)
        return jnp.concatenate([masked_BRM, mel_BRM[:, heard:]], axis=1)

    arrays["mel_BRM"] = mel(samples_BW)
    if step.teacher is not None and "encoder" in teacher:
        silence = step.teacher.window_samples - step.student.window_samples
        if silence:
            arrays["teacher_mel_BRM"] = mel(jnp.pad(samples_BW, ((0, 0), (0, silence))))
    return arrays
