"""The training loss: a weighted sum of terms, each a small class of its own.

A new objective is a class with the attributes and the method of :class:`LossTerm`, or of
:class:`TokenLossTerm` where it is computed from the logits of single label tokens. It is handed to
``flax_distil.distill`` in ``loss_terms``; nothing here has to change. Without a teacher, the terms that
need one are left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import merge
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.forward import StudentAndTeacher, forward
from flax_distil.distillation.generalized_jsd import GeneralizedJSD
from flax_distil.distillation.schedules import LossSchedule, at_peaks, loss_schedule, peak, with_values
from flax_distil.distillation.step_config import StepConfig
from flax_distil.distillation.training_config import LossConfig
from flax_distil.distillation.vocabulary_loss import (
    LogitsChunk,
    TermValues,
    TokenLossSums,
    log_probs,
    token_losses,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossInputs:
    """What a loss term is computed from: one micro-batch on one device.

    Attributes:
        outputs: What student and teacher made of the batch.
        batch: Labels and the mask of those that count.
        tokens: Number of label tokens that count, over the global batch.
        frames: Number of encoder positions of the rows of the global batch that have a label.
    """

    outputs: StudentAndTeacher
    batch: Batch
    tokens: Float[Array, ""]
    frames: Float[Array, ""]


class _Term(Protocol):
    """What every loss term tells of itself.

    Attributes:
        metric: Name under which the term is logged.
        weight: Factor of the term in the loss, a number or a ``LossSchedule``. So may be any other field of
            a term that is a dataclass; where it is computed, it has the value of the step.
        needs_teacher: Whether the term compares the student with the teacher.
    """

    @property
    def metric(self) -> str: ...
    @property
    def weight(self) -> float | LossSchedule: ...
    @property
    def needs_teacher(self) -> bool: ...


@runtime_checkable
class LossTerm(_Term, Protocol):
    """A term that is computed from whole outputs and differentiated by JAX; it is left out at weight 0."""

    @property
    def needs_layers(self) -> bool:
        """Whether the term reads the output of every layer."""
        ...

    def __call__(self, inputs: LossInputs) -> Float[Array, ""]:
        """Return this micro-batch's share of the term's mean over the global batch, without its weight."""


@runtime_checkable
class TokenLossTerm(_Term, Protocol):
    """A term on the logits of label tokens; all of them share one pass over the vocabulary.

    One that needs the teacher is left out at weight 0; the others are computed, and logged, all the same.
    """

    def sum_and_gradient(self, chunk: LogitsChunk) -> tuple[Float[Array, ""], Float[Array, "C V"]]:
        """Return the sum over a chunk of tokens, and each token's gradient by its logits, without weight."""


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The cross-entropy of the labels.

    Attributes:
        weight: Factor of the term in the loss.
        label_smoothing_factor: Share of the target that is spread evenly over the vocabulary, as
            ``label_smoothing`` of ``torch.nn.functional.cross_entropy``.
    """

    weight: float | LossSchedule = 1.0
    label_smoothing_factor: float = 0.0
    metric = "ce_loss"
    needs_teacher = False

    def sum_and_gradient(self, chunk: LogitsChunk) -> tuple[Array, Array]:
        """Return Σ CE in nats, and ∂CE/∂s = softmax(s) - target."""
        logits_CV, vocabulary, norms = chunk.student_CV, chunk.vocabulary, chunk.student_norms
        target_CV: Array = chunk.labels_C[:, None] == vocabulary.ids(logits_CV)
        ce_C = -log_probs(vocabulary.pick(logits_CV, chunk.labels_C), norms, 1.0)[:, 0]
        if smoothed := self.label_smoothing_factor:
            size = vocabulary.size(logits_CV)
            evenly_C = -vocabulary.sum(log_probs(logits_CV, norms, 1.0)) / size
            ce_C = (1.0 - smoothed) * ce_C + smoothed * evenly_C
            target_CV = (1.0 - smoothed) * target_CV + smoothed / size
        return chunk.sum(ce_C), jnp.exp(log_probs(logits_CV, norms, 1.0)) - target_CV


@dataclasses.dataclass(frozen=True)
class KLDivergence:
    """The KL divergence of the student's tokens from the teacher's, scaled by T².

    Where the data sets have weights of their own, each token counts by that of its row; the mean is still
    taken over all label tokens.

    Attributes:
        weight: Factor of the term in the loss; 0 leaves the teacher's logits out.
        temperature: T of both softmaxes, a number or a ``LossSchedule``.

    Source: Distil-Whisper, arXiv 2311.00430, section 3; Hinton et al., arXiv 1503.02531, section 2.
    """

    weight: float | LossSchedule = 1.0
    temperature: Any = 2.0
    metric = "kl_loss"
    needs_teacher = True

    def sum_and_gradient(self, chunk: LogitsChunk) -> tuple[Array, Array]:
        """Return T² Σ KL in nats, and ∂(T² KL)/∂s = T (softmax(s / T) - softmax(t / T))."""
        student_CV, teacher_CV, temperature = chunk.student_CV, chunk.teacher_CV, self.temperature
        assert teacher_CV is not None
        norms = chunk.row_norms(student_CV, temperature), chunk.row_norms(teacher_CV, temperature)
        student_log_CV = log_probs(student_CV, norms[0], temperature)
        teacher_log_CV = log_probs(teacher_CV, norms[1], temperature)
        kl_C = chunk.vocabulary.sum(jnp.exp(teacher_log_CV) * (teacher_log_CV - student_log_CV))
        # Computed again behind a barrier: to keep arrays of [C, V] would cost more time and memory.
        norms = jax.lax.optimization_barrier(norms)
        student_log_CV = log_probs(student_CV, norms[0], temperature)
        teacher_log_CV = log_probs(teacher_CV, norms[1], temperature)
        gradient_CV = temperature * (jnp.exp(student_log_CV) - jnp.exp(teacher_log_CV))
        if (weights_C := chunk.kl_weights_C) is not None:
            kl_C, gradient_CV = weights_C * kl_C, weights_C[:, None] * gradient_CV
        return temperature**2 * chunk.sum(kl_C), gradient_CV


@dataclasses.dataclass(frozen=True)
class HiddenMSE:
    """The squared difference between the hidden states of matching layers.

    Where both models run an encoder, the layers of the two encoders are compared too.

    Attributes:
        weight: Factor of the term in the loss.

    Source: TinyBERT, arXiv 1909.10351 (distillation of hidden states); ``mse_weight`` and the matched layers
    of huggingface/distil-whisper, ``training/flax/run_distillation.py``.
    """

    weight: float | LossSchedule = 1.0
    metric = "mse_loss"
    needs_teacher = True
    needs_layers = True

    def __call__(self, inputs: LossInputs) -> Float[Array, ""]:
        """Return the mean over label tokens, and over encoder positions, of the global batch."""
        student, teacher = inputs.outputs.student, inputs.outputs.teacher
        assert teacher is not None
        assert teacher.layers_LBTD is not None
        assert student.layers_LBTD is not None
        theirs_LBTD = jax.lax.stop_gradient(teacher.layers_LBTD)
        mse = hidden_state_error(student.layers_LBTD, theirs_LBTD, _compared(inputs.batch)) / inputs.tokens
        own_LBSD, theirs_LBSD = inputs.outputs.student_encoder_LBSD, inputs.outputs.teacher_encoder_LBSD
        if own_LBSD is not None and theirs_LBSD is not None:
            heard_LBSD = theirs_LBSD[:, :, : own_LBSD.shape[2]]  # the teacher may hear more at a time
            counts_B1 = inputs.batch.loss_mask_BT.any(axis=1, keepdims=True)
            mse += hidden_state_error(own_LBSD, heard_LBSD, counts_B1) / inputs.frames
        return mse


Term = LossTerm | TokenLossTerm


def make_terms(config: LossConfig) -> dict[str, Term]:
    """Return the terms of the loss while training, by name."""
    config = config.complete(has_teacher=True)
    kl = loss_schedule(config, "kl_weight"), loss_schedule(config, "temperature")
    return {
        "ce": CrossEntropy(loss_schedule(config, "ce_weight"), config.label_smoothing_factor),
        "kl": GeneralizedJSD(*kl, config.beta) if config.beta else KLDivergence(*kl),
        "hidden_mse": HiddenMSE(loss_schedule(config, "mse_weight")),
    }


def make_evaluation_terms(config: LossConfig) -> dict[str, Term]:
    """Return the terms of an evaluation, whose losses can be compared over a run and between runs.

    The temperature is 1, labels are not smoothed, the divergence is KL(teacher ‖ student), and a weight with
    a schedule has its largest value.
    """
    plain = dataclasses.replace(
        config, temperature=1.0, temperature_schedule="constant", beta=0.0, label_smoothing_factor=0.0
    )
    return at_peaks(make_terms(plain))


class StepScalars(NamedTuple):
    """Numbers of a whole step that the loss of each of its micro-batches needs.

    Attributes:
        tokens: Number of label tokens that count, over the global batch.
        frames: Number of encoder positions of the rows of the global batch that have a label.
        values: Fields of the terms that have another value in this step, by the name of the term.
    """

    tokens: Float[Array, ""]
    frames: Float[Array, ""]
    values: Mapping[str, TermValues]


def distillation_loss(
    config: StepConfig,
    params: Params,
    frozen: Params,
    teacher: Params,
    batch: Batch,
    key: Array,
    scalars: StepScalars,
) -> tuple[Array, dict[str, Array]]:
    """Return a micro-batch's share of the loss of the global batch, and of its metrics.

    Args:
        config: The static part of the step, with the terms of the loss.
        params: Leaves of the student that are trained.
        frozen: The other leaves of the student.
        teacher: Weights of the teacher; ``{}`` without one.
        batch: One micro-batch on this device.
        key: Random key of the dropouts.
        scalars: Numbers of the whole step.
    """
    tokens, frames, values = scalars
    outputs = forward(config, merge(params, frozen), teacher, batch, key, trains_encoder="encoder" in params)
    sums = token_loss_sums(config, config.terms, outputs, batch, values)
    loss = sums.total / tokens
    metrics = {name: value / tokens for name, value in sums.losses.items()}
    metrics["accuracy"] = sums.correct / tokens
    inputs = LossInputs(outputs=outputs, batch=batch, tokens=tokens, frames=frames)
    for name, term in config.terms.items():
        is_computed = peak(term.weight) > 0 and (outputs.teacher is not None or not term.needs_teacher)
        if is_computed and not isinstance(term, TokenLossTerm):
            changed = values.get(name, {})
            value = with_values(term, changed)(inputs)
            loss += changed.get("weight", term.weight) * value
            metrics[term.metric] = value
    return loss, metrics | {"loss": loss}


def token_loss_sums(
    config: StepConfig,
    terms: Mapping[str, Any],
    outputs: StudentAndTeacher,
    batch: Batch,
    values: Mapping[str, TermValues] | None = None,
) -> TokenLossSums:
    """Sum the terms on single label tokens over a batch, in one pass over the vocabulary."""
    student, teacher = outputs.student, outputs.teacher
    token_terms = {name: term for name, term in terms.items() if isinstance(term, TokenLossTerm)}
    uses_logits = any(term.needs_teacher and peak(term.weight) > 0 for term in token_terms.values())
    return token_losses(
        student.flat_hidden_PD,
        student.embedding_VD,
        (teacher.flat_hidden_PD, teacher.embedding_VD) if teacher is not None and uses_logits else None,
        batch.labels_BT.reshape(-1),
        batch.loss_mask_BT.reshape(-1),
        kl_weights_P=_per_token(batch.kl_weight_B, batch),
        terms=tuple(token_terms.values()),
        values=tuple((values or {}).get(name, {}) for name in token_terms),
        chunk_size=config.chunk_size,
        vocabulary_axis=config.student_options.sharding.vocabulary_axis,
    )


def _compared(batch: Batch) -> Array:
    """Return which label tokens are compared with the teacher: not those of rows whose KL weight is 0."""
    if batch.kl_weight_B is None:
        return batch.loss_mask_BT
    return batch.loss_mask_BT & (batch.kl_weight_B > 0)[:, None]


def _per_token(values_B: Array | None, batch: Batch) -> Array | None:
    """Return the value of its row for each label token, flattened over rows and positions."""
    return None if values_B is None else jnp.repeat(values_B, batch.labels_BT.shape[1])


def matched_teacher_layers(student_layers: int, teacher_layers: int) -> list[int]:
    """Return the teacher layer each student layer is compared with by the MSE term.

    ``linspace(T // S - 1, T - 1, S)``: 2 layers against 32 are compared with layers 15 and 31.

    Raises:
        InputError: If the student has more layers.

    Source: distil-whisper, ``training/run_distillation.py``.
    """
    if student_layers > teacher_layers:
        raise InputError(
            f"a student of {student_layers} layers has more than its teacher ({teacher_layers}): "
            "their hidden states cannot be compared; set the weight of the MSE term to 0"
        )
    if student_layers == 1:
        return [teacher_layers - 1]
    first, last = teacher_layers // student_layers - 1, teacher_layers - 1
    return [first + index * (last - first) // (student_layers - 1) for index in range(student_layers)]


def hidden_state_error(
    student_LBTD: Float[Array, "L B T D"],
    teacher_KBTD: Float[Array, "K B T D"],
    mask_BT: Bool[Array, "B T"] | Bool[Array, "B 1"] | None = None,
) -> Float[Array, ""]:
    """Return the sum over positions of the squared difference, averaged over layers and features."""
    layers = jnp.asarray(matched_teacher_layers(student_LBTD.shape[0], teacher_KBTD.shape[0]))
    difference = student_LBTD.astype(jnp.float32) - teacher_KBTD[layers].astype(jnp.float32)
    error_BT = jnp.square(difference).mean(axis=(0, 3))
    return error_BT.sum() if mask_BT is None else (error_BT * mask_BT).sum()
