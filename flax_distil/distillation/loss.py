"""Cross-entropy and temperature-scaled KL that never hold the logits of a whole batch.

The tied projection, both softmaxes and the gradient are computed together for a chunk
of tokens at a time. Tokens that count come first, and chunks without any are skipped,
so padding costs no vocabulary projection.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the distillation loss.

    Attributes:
        ce: of the cross-entropy on the labels.
        kl: of the KL divergence from the teacher; 0 leaves the teacher out.
        mse: of the squared difference of hidden states.
        temperature: T of both softmaxes of the KL term, which is scaled by T².
        label_smoothing_factor: share ε of the cross-entropy's target that is spread evenly over the
            vocabulary, as ``label_smoothing`` of ``torch.nn.functional.cross_entropy``.

    Source: arXiv 2311.00430, section 3; RECIPE 5.
    """

    ce: float = 0.8
    kl: float = 1.0
    mse: float = 0.0
    temperature: float = 2.0
    label_smoothing_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ce", "kl", "mse"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} weight {getattr(self, name)} is negative: expected 0 or more")
        if self.temperature <= 0:
            raise InputError(f"temperature {self.temperature} is not positive")
        if not 0 <= self.label_smoothing_factor < 1:
            raise InputError(
                f"label_smoothing_factor {self.label_smoothing_factor} is not between 0 and 1 (exclusive)"
            )


class TokenLossSums(NamedTuple):
    """Sums over the label tokens that count; divide by ``tokens`` once, globally.

    Attributes:
        total: ``ce_weight · ΣCE + kl_weight · T² · ΣKL``; the only field with a gradient.
        ce: ΣCE in nats, with smoothed targets where they are asked for.
        kl: T² · ΣKL in nats.
        correct: how many labels were the student's most likely token.
        tokens: how many label tokens counted.
    """

    total: Float[Array, ""]
    ce: Float[Array, ""]
    kl: Float[Array, ""]
    correct: Float[Array, ""]
    tokens: Float[Array, ""]


def token_losses(
    student_PD: Float[Array, "P D"],
    student_VD: Float[Array, "V D"],
    teacher: tuple[Float[Array, "P E"], Float[Array, "V E"]] | None,
    labels_P: Int[Array, " P"],
    mask_P: Bool[Array, " P"],
    *,
    weights: LossWeights,
    chunk_size: int = 256,
    vocabulary_axis: str | None = None,
) -> TokenLossSums:
    """Sum cross-entropy and KL over P label positions, in float32 whatever the inputs are.

    Args:
        student_PD: the student's hidden states, flattened over batch and time.
        student_VD: its token embedding (tied output projection), in the compute dtype.
        teacher: the teacher's hidden states and token embedding; None for CE only.
        labels_P: target ids; anything where the mask is False.
        mask_P: True where a position counts.
        weights: of the two terms, and the temperature.
        chunk_size: tokens whose logits exist at one time.
        vocabulary_axis: mesh axis whose devices hold the rows of both embeddings in order, in equal parts
            (``teacher`` may hold all); hidden states, labels and results are equal on all of them.

    Returns:
        The sums. The gradient reaches ``student_PD`` and ``student_VD`` only, and is exact.
    """
    chunk_size = min(chunk_size, labels_P.shape[0])
    order = jnp.argsort(~mask_P, stable=True)
    labels_P = jnp.where(mask_P, labels_P, 0)

    def chunks(x: Array) -> Array:
        x = x[order]
        padding = -x.shape[0] % chunk_size
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, chunk_size, *x.shape[1:])

    targets = (chunks(labels_P), chunks(mask_P))
    vocabulary = _Vocabulary(vocabulary_axis)
    if teacher is not None:
        part_VE = vocabulary.own_rows(teacher[1], student_VD.shape[0])
        teacher = jax.lax.stop_gradient((chunks(teacher[0]), part_VE))
    return _chunked(_Objective(weights, vocabulary), chunks(student_PD), student_VD, teacher, targets)


class _Vocabulary(NamedTuple):
    """Reductions over the vocabulary, of which a device may hold a part."""

    axis: str | None

    def max(self, x_CV: Array) -> Array:
        best_C1 = x_CV.max(axis=1, keepdims=True)
        return best_C1 if self.axis is None else jax.lax.pmax(best_C1, self.axis)

    def sum(self, x_CV: Array, *, keepdims: bool = False) -> Array:
        return self.total(x_CV.sum(axis=1, keepdims=keepdims))

    def total(self, x: Array) -> Array:
        return x if self.axis is None else jax.lax.psum(x, self.axis)

    def size(self, x_CV: Array) -> Array | int:
        """Return how many tokens the whole vocabulary has."""
        return x_CV.shape[1] if self.axis is None else x_CV.shape[1] * jax.lax.axis_size(self.axis)

    def first(self, columns: int) -> Array | int:
        """Return the token id of the first of the columns at hand."""
        return 0 if self.axis is None else jax.lax.axis_index(self.axis) * columns

    def ids(self, x_CV: Array) -> Array:
        """Return the token ids of the columns at hand."""
        return self.first(x_CV.shape[1]) + jnp.arange(x_CV.shape[1])

    def pick(self, x_CV: Array, ids_C: Array) -> Array:
        """Return the value of one token id per row [C, 1]."""
        columns_C1 = (ids_C - self.first(x_CV.shape[1]))[:, None]
        found_C1 = jnp.take_along_axis(x_CV, jnp.clip(columns_C1, 0, x_CV.shape[1] - 1), axis=1)
        is_here_C1 = (columns_C1 >= 0) & (columns_C1 < x_CV.shape[1])
        return self.total(jnp.where(is_here_C1, found_C1, 0.0))

    def argmax(self, x_CV: Array, best_C1: Array) -> Array:
        """Return the first id whose value is the largest, given :meth:`max`."""
        if self.axis is None:
            return x_CV.argmax(axis=1)
        first_C = jnp.where(x_CV == best_C1, self.ids(x_CV), jnp.iinfo(jnp.int32).max).min(axis=1)
        return jax.lax.pmin(first_C, self.axis)

    def own_rows(self, embedding_VD: Array, rows: int) -> Array:
        """Return this device's part of an embedding that it may hold the whole of."""
        if self.axis is None or embedding_VD.shape[0] == rows:
            return embedding_VD
        return jax.lax.dynamic_slice_in_dim(embedding_VD, self.first(rows), rows)


class _Objective(NamedTuple):
    """Everything static about the loss."""

    weights: LossWeights
    vocabulary: _Vocabulary


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    objective: _Objective,
    student_KCD: Array,
    student_VD: Array,
    teacher: tuple[Array, Array] | None,
    targets: tuple[Array, Array],
) -> TokenLossSums:
    return _over_chunks(objective, student_KCD, student_VD, teacher, targets, with_gradient=False)[0]


def _forward(
    objective: _Objective,
    student_KCD: Array,
    student_VD: Array,
    teacher: tuple[Array, Array] | None,
    targets: tuple[Array, Array],
) -> tuple[TokenLossSums, tuple[Array, Array]]:
    return _over_chunks(objective, student_KCD, student_VD, teacher, targets, with_gradient=True)


def _backward(
    objective: _Objective, gradients: tuple[Array, Array], cotangents: TokenLossSums
) -> tuple[Array, Array, None, None]:
    hidden_KCD, embedding_VD = gradients
    scale = cotangents.total
    return (
        hidden_KCD * scale.astype(hidden_KCD.dtype),
        embedding_VD * scale.astype(embedding_VD.dtype),
        None,
        None,
    )


_chunked.defvjp(_forward, _backward)


def _over_chunks(
    objective: _Objective,
    student_KCD: Array,
    student_VD: Array,
    teacher: tuple[Array, Array] | None,
    targets: tuple[Array, Array],
    *,
    with_gradient: bool,
) -> tuple[TokenLossSums, tuple[Array, Array]]:
    """Scan the chunks; with a gradient, the embedding's is accumulated in float32."""
    teacher_KCD, teacher_VD = (None, None) if teacher is None else teacher
    zero = jnp.zeros((), jnp.float32)
    no_sums = TokenLossSums(zero, zero, zero, zero, zero)
    no_embedding = jnp.zeros(student_VD.shape if with_gradient else (0, 0), jnp.float32)

    def compute(carry: tuple, chunk: tuple) -> tuple:
        sums, embedding_gradient_VD = carry
        student_CD, teacher_CD, labels_C, mask_C = chunk
        logits_CV = _project(student_CD, student_VD)
        teacher_CV = None if teacher_CD is None or teacher_VD is None else _project(teacher_CD, teacher_VD)
        added, slope_CV = _chunk_losses(objective, logits_CV, teacher_CV, labels_C, mask_C)
        sums = TokenLossSums(*(a + b for a, b in zip(sums, added, strict=True)))
        if not with_gradient:
            return (sums, embedding_gradient_VD), jnp.zeros((0, 0), student_CD.dtype)
        slope_CV = slope_CV.astype(student_CD.dtype)
        hidden_gradient_CD = objective.vocabulary.total(slope_CV @ student_VD)
        embedding_gradient_VD += jnp.einsum(
            "cv,cd->vd", slope_CV, student_CD, preferred_element_type=jnp.float32
        )
        return (sums, embedding_gradient_VD), hidden_gradient_CD

    def skip(carry: tuple, chunk: tuple) -> tuple:
        student_CD = chunk[0]
        return carry, jnp.zeros(student_CD.shape if with_gradient else (0, 0), student_CD.dtype)

    (sums, embedding_VD), hidden_KCD = jax.lax.scan(
        lambda carry, chunk: jax.lax.cond(chunk[-1].any(), compute, skip, carry, chunk),
        (no_sums, no_embedding),
        (student_KCD, teacher_KCD, *targets),
    )
    return sums, (hidden_KCD, embedding_VD.astype(student_VD.dtype))


def _project(hidden_CD: Array, embedding_VD: Array) -> Array:
    return jnp.einsum("cd,vd->cv", hidden_CD, embedding_VD, preferred_element_type=jnp.float32)


def _chunk_losses(
    objective: _Objective, logits_CV: Array, teacher_CV: Array | None, labels_C: Array, mask_C: Array
) -> tuple[TokenLossSums, Array]:
    """Return the sums of one chunk and d total / d logits, all float32.

    d CE / d s = softmax(s) - target;  d (T² KL) / d s = T (softmax(s / T) - softmax(t / T))
    """
    weights, vocabulary = objective
    counts_C, temperature = mask_C.astype(jnp.float32), weights.temperature
    plain = _row_norms(vocabulary, logits_CV, 1.0)
    onehot_CV = labels_C[:, None] == vocabulary.ids(logits_CV)
    ce_C = -_log_probs(vocabulary.pick(logits_CV, labels_C), plain, 1.0)[:, 0]
    target_CV: Array = onehot_CV
    if smoothed := weights.label_smoothing_factor:
        size = vocabulary.size(logits_CV)
        evenly_C = -vocabulary.sum(_log_probs(logits_CV, plain, 1.0)) / size
        ce_C = (1.0 - smoothed) * ce_C + smoothed * evenly_C
        target_CV = (1.0 - smoothed) * onehot_CV + smoothed / size
    slope_CV = weights.ce * (jnp.exp(_log_probs(logits_CV, plain, 1.0)) - target_CV)
    kl = jnp.zeros((), jnp.float32)
    if teacher_CV is not None:
        student_norms = _row_norms(vocabulary, logits_CV, temperature)
        norms = student_norms, _row_norms(vocabulary, teacher_CV, temperature)

        def log_probs(norms: tuple[_RowNorms, _RowNorms]) -> tuple[Array, Array]:
            return _log_probs(logits_CV, norms[0], temperature), _log_probs(teacher_CV, norms[1], temperature)

        student_log_CV, teacher_log_CV = log_probs(norms)
        kl_C = vocabulary.sum(jnp.exp(teacher_log_CV) * (teacher_log_CV - student_log_CV))
        kl = temperature**2 * (kl_C * counts_C).sum()
        student_log_CV, teacher_log_CV = log_probs(jax.lax.optimization_barrier(norms))
        slope_CV += weights.kl * temperature * (jnp.exp(student_log_CV) - jnp.exp(teacher_log_CV))
    ce = (ce_C * counts_C).sum()
    correct = ((vocabulary.argmax(logits_CV, plain.shift_C1) == labels_C) * counts_C).sum()
    total = weights.ce * ce + weights.kl * kl
    sums = TokenLossSums(total, ce, kl, correct, counts_C.sum())
    return sums, slope_CV * counts_C[:, None]


class _RowNorms(NamedTuple):
    """What turns a row of logits into log-probabilities.

    They come from behind a barrier, so that the compiler does not keep one array of [C, V] for all uses:
    to compute it again costs less than to write and read it, and takes no memory.
    """

    shift_C1: Array
    log_sum_C1: Array


def _row_norms(vocabulary: _Vocabulary, logits_CV: Array, temperature: float) -> _RowNorms:
    shift_C1 = jax.lax.optimization_barrier(vocabulary.max(logits_CV))
    log_sum_C1 = jnp.log(vocabulary.sum(jnp.exp((logits_CV - shift_C1) / temperature), keepdims=True))
    return jax.lax.optimization_barrier(_RowNorms(shift_C1, log_sum_C1))


def _log_probs(logits_CV: Array, norms: _RowNorms, temperature: float) -> Array:
    return (logits_CV - norms.shift_C1) / temperature - norms.log_sum_C1


def matched_teacher_layers(student_layers: int, teacher_layers: int) -> list[int]:
    """Return the teacher layer each student layer is compared with by the MSE term.

    ``linspace(T // S - 1, T - 1, S)``: 2 against 32 gives 15 and 31 (RECIPE 5).

    Raises:
        InputError: if the student has more layers.
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
    mask_BT: Bool[Array, "B T"] | None = None,
) -> Float[Array, ""]:
    """Return the sum over positions of the squared difference, averaged over layers and features.

    Divide by the global number of positions that count to get the mean of RECIPE 5.
    """
    layers = jnp.asarray(matched_teacher_layers(student_LBTD.shape[0], teacher_KBTD.shape[0]))
    difference = student_LBTD.astype(jnp.float32) - teacher_KBTD[layers].astype(jnp.float32)
    error_BT = jnp.square(difference).mean(axis=(0, 3))
    return error_BT.sum() if mask_BT is None else (error_BT * mask_BT).sum()
