"""The training and evaluation step: pure functions of one device's part, jitted once by whoever runs them.

A training step is :func:`compute_gradients` on every device, then :func:`apply_gradients` on whole arrays
(or, under ``pmap``, on every device's copy); :func:`train_step` is both on one device.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten, merge, unflatten
from flax_distil.distillation.loss import LossWeights, TokenLossSums, hidden_state_error, token_losses
from flax_distil.distillation.train_state import TrainState
from flax_distil.model.assembly import bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig

Batch = Mapping[str, Any]

LARGEST_LOSS = 1e9
"""Nats per label token that no model is off by chance: parameters have grown until numbers overflow."""

PRECISIONS = ("full", "half_mixed", "full_mixed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Everything static about a step.

    Attributes:
        student: shape of the student, with its dropouts.
        teacher: shape of the teacher; None for fine-tuning on the labels alone.
        student_options: how the student computes.
        teacher_options: how the teacher and a shared encoder compute.
        weights: of the loss.
        gradient_dtype: "bfloat16" differentiates with respect to a bfloat16 copy of the
            parameters (precision ``full_mixed``).
        chunk_size: label tokens whose logits exist at one time.
        batch_axes: mesh axes that divide the batch, inside ``shard_map`` or ``pmap``; none on one device.

    Raises:
        InputError: if student and teacher do not share vocabulary and mel bins.
    """

    student: WhisperConfig
    teacher: WhisperConfig | None
    student_options: ComputeOptions
    teacher_options: ComputeOptions
    weights: LossWeights
    gradient_dtype: str = "float32"
    chunk_size: int = 256
    batch_axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.teacher is None:
            return
        for name in ("vocab_size", "num_mel_bins"):
            mine, theirs = getattr(self.student, name), getattr(self.teacher, name)
            if mine != theirs:
                raise InputError(
                    f"student and teacher differ in {name}: {mine} and {theirs}; "
                    "distil a student initialised from this teacher"
                )


def encode(
    config: WhisperConfig, options: ComputeOptions, encoder: Params, mel_BRM: Float[Array, "B R M"]
) -> Float[Array, "B S D"]:
    """Run an encoder without dropout; what ``encoder_out_KBSD`` of a batch holds."""
    return bind_encoder(config, options, encoder)(mel_BRM)[0]


def train_step(
    config: StepConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: Params,
    teacher: Params,
    batch: Batch,
    key: Array,
) -> tuple[TrainState, dict[str, Array]]:
    """Do one optimizer update on one device: :func:`compute_gradients`, then :func:`apply_gradients`."""
    key = jax.random.fold_in(key, state.step)
    gradients, metrics = compute_gradients(config, state.params, frozen, teacher, batch, key)
    return apply_gradients(optimizer, state, gradients, metrics)


def compute_gradients(
    config: StepConfig,
    trainable: Params,
    frozen: Params,
    teacher: Params,
    batch: Batch,
    key: Array,
    *,
    prepare: Callable[[Batch, Array | int], Batch] | None = None,
) -> tuple[Params, dict[str, Array]]:
    """Differentiate the loss of the global batch: K micro-batches of B samples on this device.

    Args:
        config: static.
        trainable: float32 leaves to train, as ``config.student_options.sharding`` says.
        frozen: frozen leaves of the student; its encoder is the teacher's too when
            ``teacher`` has none.
        teacher: ``{"decoder": …}``, with ``"encoder"`` where it is not shared; ``{}`` for
            cross-entropy only.
        batch: ``mel_KBRM`` (or ``encoder_out_KBSD`` of a frozen encoder), ``decoder_input_ids_KBT``,
            ``labels_KBT`` and ``loss_mask_KBT``; this device's part of the global batch. With
            ``teacher_mel_KBRM`` where the teacher's window is longer than the student's.
        key: of the dropouts of this step.
        prepare: makes what a micro-batch lacks of it (``labels_BT``, …) and its number, when its turn comes:
            log-mel of samples, so that no more than one micro-batch of it is held.

    Returns:
        float32 gradients of the pieces in ``trainable``, summed over all devices, and float32 scalars
        over the global batch: ``loss``, ``ce_loss``, ``kl_loss`` (with T²), ``mse_loss`` where weighted,
        ``accuracy``, ``tokens``.

    Source: RECIPE 5. N, the number of label tokens of the global batch, divides once.
    """
    if config.batch_axes:
        key = jax.random.fold_in(key, jax.lax.axis_index(config.batch_axes))
    tokens = _total(config, batch["loss_mask_KBT"].sum().astype(jnp.float32))
    frames = _total(config, jnp.float32(batch["labels_KBT"].shape[0] * batch["labels_KBT"].shape[1]))
    denominators = jnp.maximum(tokens, 1.0), frames * config.student.max_source_positions
    wanted = jnp.dtype(config.gradient_dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(wanted), trainable)

    def micro_step(gradients: Params, part: tuple[Batch, Array, Any]) -> tuple[Params, dict[str, Array]]:
        micro_batch, micro_key, number = part
        micro_batch = {name.replace("_KB", "_B"): leaf for name, leaf in micro_batch.items()}
        if prepare is not None:
            micro_batch = dict(prepare(micro_batch, number))
        compute = jax.grad(_loss, argnums=1, has_aux=True)
        added, sums = compute(config, params, frozen, teacher, micro_batch, micro_key, denominators)
        return jax.tree.map(jnp.add, gradients, added), sums

    micro_batches = batch["labels_KBT"].shape[0]
    keys = jax.random.split(key, micro_batches)
    none = jax.tree.map(jnp.zeros_like, params)
    if micro_batches == 1:
        gradients, sums = micro_step(none, (jax.tree.map(lambda leaf: leaf[0], dict(batch)), keys[0], 0))
    else:
        parts = (dict(batch), keys, jnp.arange(micro_batches))
        gradients, sums_K = jax.lax.scan(micro_step, none, parts)
        sums = jax.tree.map(lambda leaf: leaf.sum(axis=0), sums_K)
    return _total_gradients(config, gradients), _total(config, sums) | {"tokens": tokens}


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, gradients: Params, metrics: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
    """Do one optimizer update, or none where the loss has diverged: loss or gradient are not finite.

    Args:
        optimizer: static; of ``make_optimizer``.
        state: donated by the caller.
        gradients: of :func:`compute_gradients`.
        metrics: of :func:`compute_gradients`.

    Returns:
        The next state, and the metrics with ``grad_norm`` (before clipping). After a loss or gradient that is
        not finite, or a loss above ``LARGEST_LOSS``, it holds the parameters and moments of ``state``; only
        its counts go on.
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

    Args as in :func:`train_step`, without the leading axis K (``mel_BRM``, ``labels_BT``, …).

    Returns:
        Sums over the label tokens of the global batch; divide by ``tokens`` at the end.
    """
    weights = dataclasses.replace(config.weights, temperature=1.0, label_smoothing_factor=0.0)
    config = dataclasses.replace(config, weights=weights)
    student = merge(params, frozen)
    forward = _forward(config, student, teacher, batch, None, trains_encoder="encoder" in params)
    return _total(config, _token_losses(config, forward, batch))


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


def _loss(
    config: StepConfig,
    params: Params,
    frozen: Params,
    teacher: Params,
    batch: Batch,
    key: Array,
    denominators: tuple[Array, Array],
) -> tuple[Array, dict[str, Array]]:
    """Return this micro-batch's share of the global loss, and of the metrics."""
    student = merge(params, frozen)
    tokens, frames = denominators
    forward = _forward(config, student, teacher, batch, key, trains_encoder="encoder" in params)
    sums = _token_losses(config, forward, batch)
    loss = sums.total / tokens
    metrics = {"ce_loss": sums.ce / tokens, "kl_loss": sums.kl / tokens, "accuracy": sums.correct / tokens}
    if config.weights.mse > 0:
        mse = (
            hidden_state_error(
                forward["student_layers"],
                jax.lax.stop_gradient(forward["teacher_layers"]),
                batch["loss_mask_BT"],
            )
            / tokens
        )
        if "encoder" in teacher:
            heard = config.student.max_source_positions
            theirs_LBSD = forward["teacher_encoder_layers"][:, :, :heard]
            mse += hidden_state_error(forward["student_encoder_layers"], theirs_LBSD) / frames
        loss += config.weights.mse * mse
        metrics["mse_loss"] = mse
    return loss, metrics | {"loss": loss}


def _forward(
    config: StepConfig,
    student: Params,
    teacher: Params,
    batch: Batch,
    key: Array | None,
    *,
    trains_encoder: bool,
) -> dict[str, Array]:
    """Run encoder(s) and decoders; an encoder that both share runs once."""
    rates = (config.student.dropout, config.student.attention_dropout, config.student.activation_dropout)
    encoder_key, decoder_key = (None, None) if key is None or not any(rates) else jax.random.split(key)
    with_layers = config.weights.mse > 0
    tokens = batch["decoder_input_ids_BT"]
    forward: dict[str, Array] = {}
    encoder_options = config.student_options if trains_encoder else config.teacher_options

    def run_encoder(which: str, options: ComputeOptions, params: Params, key: Array | None) -> Array:
        encoder = bind_encoder(getattr(config, which), options, params["encoder"])
        collect = with_layers and "encoder" in teacher
        mel_BRM = batch.get(f"{which}_mel_BRM", batch["mel_BRM"])
        states, layers = encoder(mel_BRM, key, collect_layers=collect)
        if layers is not None:
            forward[f"{which}_encoder_layers"] = layers
        return states

    def run_decoder(which: str, options: ComputeOptions, params: Params, key: Array | None) -> None:
        decoder = bind_decoder(getattr(config, which), options, params["decoder"])
        forward[which], layers = decoder(tokens, states, key, collect_layers=with_layers)
        forward[f"{which}_embedding"] = decoder.token_embedding.embedding[...].astype(options.dtype)
        if layers is not None:
            forward[f"{which}_layers"] = layers

    if "encoder_out_BSD" in batch:
        states = batch["encoder_out_BSD"]
    else:
        states = run_encoder("student", encoder_options, student, encoder_key if trains_encoder else None)
    run_decoder("student", config.student_options, student, decoder_key)
    if teacher:
        if "encoder" in teacher:
            states = run_encoder("teacher", config.teacher_options, teacher, None)
        run_decoder("teacher", config.teacher_options, jax.lax.stop_gradient(teacher), None)
    return forward


def _token_losses(config: StepConfig, forward: dict[str, Array], batch: Batch) -> TokenLossSums:
    def outputs(which: str) -> tuple[Array, Array]:
        hidden_BTD = forward[which]
        return hidden_BTD.reshape(-1, hidden_BTD.shape[-1]), forward[f"{which}_embedding"]

    with_kl = "teacher" in forward and config.weights.kl > 0
    return token_losses(
        *outputs("student"),
        outputs("teacher") if with_kl else None,
        batch["labels_BT"].reshape(-1),
        batch["loss_mask_BT"].reshape(-1),
        weights=config.weights,
        chunk_size=config.chunk_size,
        vocabulary_axis=config.student_options.sharding.vocabulary_axis,
    )
