"""The training and the evaluation step: pure functions, jitted once by ``TrainStepFns``.

A training step is :func:`compute_gradients` on every device, then :func:`apply_gradients` on whole arrays
(or, under ``pmap``, on every device's copy).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flax_distil.audio.augmentation import Talkers
from flax_distil.core.arrays import Array, Params
from flax_distil.core.tree import flatten, merge, unflatten
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.forward import encode, forward, with_features
from flax_distil.distillation.loss import StepScalars, distillation_loss, token_loss_sums
from flax_distil.distillation.on_policy import is_on_policy, on_policy_batch
from flax_distil.distillation.schedules import has_schedule, scheduled_fields
from flax_distil.distillation.step_config import StepConfig
from flax_distil.distillation.train_state import TrainState
from flax_distil.distillation.vocabulary_loss import TokenLossSums
from flax_distil.model.compute_options import ComputeOptions

LARGEST_LOSS = 1e9
"""Nats per label token that no model is off by chance: parameters have grown until numbers overflow."""

Gradients = Callable[[Params, Params, Params, Batch, Array], tuple[Params, dict[str, Array]]]


def train_step(
    config: StepConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: Params,
    teacher: Params,
    batch: Batch,
    *,
    gradients: Gradients | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Do one optimizer update, and return the next state and the metrics.

    Args:
        config: The static part of the step.
        optimizer: Static; of ``make_optimizer``.
        state: Donated by the caller.
        frozen: Frozen leaves of the student; its encoder is the teacher's too when ``teacher`` has none.
        teacher: ``{"decoder": …}``, with ``"encoder"`` where it is not shared; ``{}`` for cross-entropy only.
        batch: K micro-batches, [K, B, …].
        gradients: Function that runs :func:`compute_gradients` on every device; by default on one device.
    """
    compute = gradients or functools.partial(compute_gradients, config)
    found, metrics = compute(state.params, frozen, teacher, batch, state.step)
    return apply_gradients(optimizer, state, found, metrics)


def compute_gradients(
    config: StepConfig, trainable: Params, frozen: Params, teacher: Params, batch: Batch, step: Array
) -> tuple[Params, dict[str, Array]]:
    """Differentiate the loss of the global batch: K micro-batches of B samples on this device.

    Args:
        config: The static part of the step.
        trainable: float32 leaves to train, as ``config.student_options.sharding`` says.
        frozen: Frozen leaves of the student, as in :func:`train_step`.
        teacher: Weights of the teacher, as in :func:`train_step`.
        batch: This device's part of the global batch, with samples, log-mel frames or encoder outputs. The
            samples of a micro-batch become log-mel frames when its turn comes, so that only one is held.
        step: Number of updates done before; decides on dropout.

    Returns:
        float32 gradients of the pieces in ``trainable``, summed over all devices, and float32 scalars
        over the global batch: ``loss``, ``ce_loss``, ``kl_loss`` (with T²), ``mse_loss`` where weighted,
        ``accuracy``, ``tokens``.

    N, the number of label tokens of the global batch, divides once: the mean of the Distil-Whisper paper
    (arXiv 2311.00430, section 3) does not depend on how a batch is divided.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    if config.batch_axes:
        key = jax.random.fold_in(key, jax.lax.axis_index(config.batch_axes))
    micro_batches, rows = batch.labels_BT.shape[:2]
    talkers = _all_talkers(config, batch)

    def prepared(micro_batch: Batch, number: Array | int) -> Batch:
        babble = None if talkers is None else dataclasses.replace(talkers, first=number * rows)
        return with_features(config, teacher, micro_batch, config.augmentation, babble)

    if config.on_policy is not None:
        student, is_trained = merge(trainable, frozen), "encoder" in trainable
        batch = on_policy_batch(config, student, teacher, batch, step, prepared, trains_encoder=is_trained)
    tokens = _total(config, batch.loss_mask_BT.sum().astype(jnp.float32))
    # A sample that cannot be used is a row without a label.
    used_rows = _total(config, batch.loss_mask_BT.any(axis=-1).sum().astype(jnp.float32))
    frames = used_rows * config.student.max_source_positions
    values = _term_values(config, step)
    scalars = StepScalars(jnp.maximum(tokens, 1.0), jnp.maximum(frames, 1.0), values)
    wanted = jnp.dtype(config.gradient_dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(wanted), trainable)

    def micro_step(gradients: Params, part: tuple[Batch, Array, Any]) -> tuple[Params, dict[str, Array]]:
        micro_batch, micro_key, number = part
        micro_batch = prepared(micro_batch, number)
        compute = jax.grad(distillation_loss, argnums=1, has_aux=True)
        added, sums = compute(config, params, frozen, teacher, micro_batch, micro_key, scalars)
        return jax.tree.map(jnp.add, gradients, added), sums

    keys = jax.random.split(key, micro_batches)
    none = jax.tree.map(jnp.zeros_like, params)
    if micro_batches == 1:
        gradients, sums = micro_step(none, (jax.tree.map(lambda leaf: leaf[0], batch), keys[0], 0))
    else:
        gradients, sums_K = jax.lax.scan(micro_step, none, (batch, keys, jnp.arange(micro_batches)))
        sums = jax.tree.map(lambda leaf: leaf.sum(axis=0), sums_K)
    metrics = _total(config, sums) | {"tokens": tokens}
    return _total_gradients(config, gradients), _with_step_metrics(config, metrics, values, step)


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, gradients: Params, metrics: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
    """Do one optimizer update, or none where loss or gradient are not finite, or beyond ``LARGEST_LOSS``.

    Args:
        optimizer: Static; of ``make_optimizer``.
        state: Donated by the caller.
        gradients: Gradients of :func:`compute_gradients`.
        metrics: Metrics of :func:`compute_gradients`; ``grad_norm`` (before clipping) is added.

    Returns:
        The next state, and the metrics. After a divergence, only the counts of the state go on.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    metrics = metrics | {"grad_norm": optax.tree.norm(gradients)}
    is_sound = jnp.isfinite(metrics["grad_norm"]) & (metrics["loss"] < LARGEST_LOSS)  # not of NaN either

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(is_sound, new, old) if jnp.issubdtype(old.dtype, jnp.floating) else new

    params, opt_state = jax.tree.map(
        kept, (optax.apply_updates(state.params, updates), opt_state), (state.params, state.opt_state)
    )
    return TrainState(state.step + 1, params, opt_state), metrics


def eval_step(
    config: StepConfig, params: Params, frozen: Params, teacher: Params, batch: Batch
) -> TokenLossSums:
    """Sum the teacher-forced losses of one batch at temperature 1, without dropout and label smoothing.

    Args:
        config: The static part of the step.
        params: Trainable leaves of the student.
        frozen: Frozen leaves of the student, as in :func:`train_step`.
        teacher: Weights of the teacher, as in :func:`train_step`.
        batch: This device's rows, [B, …].

    Returns:
        Sums over the label tokens of the global batch; divide by ``tokens`` at the end.
    """
    batch = with_features(config, teacher, batch)
    outputs = forward(config, merge(params, frozen), teacher, batch, None, trains_encoder="encoder" in params)
    return _total(config, token_loss_sums(config, config.evaluation_terms, outputs, batch))


def encode_samples(config: StepConfig, options: ComputeOptions, encoder: Params, batch: Batch) -> Array:
    """Return what the student's encoder makes of the samples of a batch, [B, S, D]."""
    return encode(config.student, options, encoder, with_features(config, {}, batch).mel_BRM)


def _term_values(config: StepConfig, step: Array) -> dict[str, dict[str, Array]]:
    """Return the fields of the terms whose value depends on the step, by the name of the term."""
    last = max((config.max_steps or 1) - 1, 1)
    progress = jnp.clip(step.astype(jnp.float32) / last, 0.0, 1.0)
    values = {name: scheduled_fields(term, progress) for name, term in config.terms.items()}
    if config.on_policy is not None:
        # What the student writes is no label to learn from.
        learns_labels = jnp.where(is_on_policy(config, step), 0.0, 1.0)
        for name, term in config.terms.items():
            if not term.needs_teacher:
                values[name]["weight"] = learns_labels * values[name].get("weight", term.weight)
    return values


def _with_step_metrics(
    config: StepConfig, metrics: dict[str, Array], values: dict[str, dict[str, Array]], step: Array
) -> dict[str, Array]:
    """Add what the step decided: scheduled numbers, and whether the student wrote the decoder input.

    Metrics of labels, which such a step does not have, are then not a number.
    """
    scheduled = {name for name, term in config.terms.items() if has_schedule(term)}
    metrics = metrics | {
        f"{name}_{field}": value for name in scheduled for field, value in values[name].items()
    }
    if config.on_policy is None:
        return metrics
    is_written = is_on_policy(config, step)
    of_labels = {term.metric for term in config.terms.values() if not term.needs_teacher} | {"accuracy"}
    missing = {name: jnp.where(is_written, jnp.nan, metrics[name]) for name in of_labels if name in metrics}
    return metrics | missing | {"on_policy": is_written.astype(jnp.float32)}


def _all_talkers(config: StepConfig, batch: Batch) -> Talkers | None:
    """Return the recordings of all micro-batches, of which babble is made; None without babble."""
    if not config.augmentation.babble_noise_prob or batch.samples_BW is None:
        return None
    samples_NW = batch.samples_BW.reshape(-1, batch.samples_BW.shape[-1])
    return Talkers(samples_NW=samples_NW, lengths_N=batch.lengths_B.reshape(-1))


def _total(config: StepConfig, tree: Any) -> Any:
    """Add up over all devices that share the batch."""
    return jax.lax.psum(tree, config.batch_axes) if config.batch_axes else tree


def _total_gradients(config: StepConfig, gradients: Params) -> Params:
    """Add gradients up in float32, once; those of stored pieces are summed over the gather axis already."""
    sharding = config.student_options.sharding
    gathered = dict(sharding.gather_dimensions)

    def total(path: str, gradient: Array) -> Array:
        done = sharding.gather_axis if path.split("/", 1)[-1] in gathered else None
        axes = tuple(axis for axis in config.batch_axes if axis != done)
        wide = gradient.astype(jnp.float32)
        return jax.lax.psum(wide, axes) if axes else wide

    return unflatten({path: total(path, leaf) for path, leaf in flatten(gradients).items()})
