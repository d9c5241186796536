"""Sums of losses over label tokens that never hold the logits of a whole batch.

The tied projection, the softmaxes and the gradient are computed together for a chunk of tokens at a time.
Tokens that count come first, and chunks without any are skipped, so padding costs no vocabulary projection.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.distillation.schedules import peak, with_values

TermValues = Mapping[str, Float[Array, ""]]
"""Fields of a term of the loss whose value depends on the step, by name."""


class TokenLossSums(NamedTuple):
    """Sums over the label tokens that count; divide by ``tokens`` once, globally.

    Attributes:
        total: Weighted sum of the terms; the only field with a gradient.
        losses: Sum of each term in nats, without its weight, by its metric; 0 where it is left out.
        correct: Number of labels than which the student thought no other token more likely.
        tokens: Number of label tokens that counted.
    """

    total: Float[Array, ""]
    losses: dict[str, Float[Array, ""]]
    correct: Float[Array, ""]
    tokens: Float[Array, ""]


def token_losses(
    student_PD: Float[Array, "P D"],
    student_VD: Float[Array, "V D"],
    teacher: tuple[Float[Array, "P E"], Float[Array, "V E"]] | None,
    labels_P: Int[Array, " P"],
    mask_P: Bool[Array, " P"],
    *,
    terms: tuple[Any, ...],
    values: tuple[TermValues, ...] | None = None,
    kl_weights_P: Float[Array, " P"] | None = None,
    chunk_size: int = 256,
    vocabulary_axis: str | None = None,
) -> TokenLossSums:
    """Sum the terms over P label positions, in float32 whatever the inputs are.

    Args:
        student_PD: Hidden states of the student, flattened over batch and time.
        student_VD: Its token embedding (tied output projection), in the compute dtype.
        teacher: Hidden states and token embedding of the teacher; None leaves out the terms that need it.
        labels_P: Target ids; anything where the mask is False.
        mask_P: True where a position counts.
        terms: Terms of the loss (``TokenLossTerm`` of ``distillation/loss.py``).
        values: Fields of each term that have another value in this step than in the term; None if none do.
        kl_weights_P: Weights of the positions in the KL term; None if they are all 1.
        chunk_size: Number of tokens whose logits exist at one time.
        vocabulary_axis: Mesh axis whose devices hold the rows of both embeddings in order, in equal parts
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

    weights_KC = None if kl_weights_P is None else chunks(kl_weights_P)
    targets = (chunks(labels_P), weights_KC, chunks(mask_P))
    vocabulary = Vocabulary(vocabulary_axis)
    if teacher is not None:
        part_VE = vocabulary.own_rows(teacher[1], student_VD.shape[0])
        teacher = jax.lax.stop_gradient((chunks(teacher[0]), part_VE))
    values = ({},) * len(terms) if values is None else values
    return _chunked(_Objective(terms, vocabulary), chunks(student_PD), student_VD, teacher, targets, values)


class Vocabulary(NamedTuple):
    """Reductions over the vocabulary, of which a device may hold a part."""

    axis: str | None

    def max(self, x_CV: Array) -> Array:
        """Return the largest value of each row [C, 1]."""
        best_C1 = x_CV.max(axis=1, keepdims=True)
        return best_C1 if self.axis is None else jax.lax.pmax(best_C1, self.axis)

    def sum(self, x_CV: Array, *, keepdims: bool = False) -> Array:
        """Return the sum of each row."""
        return self.total(x_CV.sum(axis=1, keepdims=keepdims))

    def total(self, x: Array) -> Array:
        """Add up what the devices of the axis hold."""
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

    def own_rows(self, embedding_VD: Array, rows: int) -> Array:
        """Return this device's part of an embedding that it may hold the whole of."""
        if self.axis is None or embedding_VD.shape[0] == rows:
            return embedding_VD
        return jax.lax.dynamic_slice_in_dim(embedding_VD, self.first(rows), rows)


class RowNorms(NamedTuple):
    """What turns a row of logits into log-probabilities.

    They come from behind a barrier, so that the compiler does not keep one array of [C, V] for all uses:
    to compute it again costs less than to write and read it, and takes no memory.
    """

    shift_C1: Array
    log_sum_C1: Array


def log_probs(logits_CV: Array, norms: RowNorms, temperature: float | Array) -> Array:
    """Return the log-probabilities of logits at a temperature, given the norms of their rows."""
    return (logits_CV - norms.shift_C1) / temperature - norms.log_sum_C1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsChunk:
    """The logits of a chunk of label tokens, all float32.

    Attributes:
        student_CV: Logits of the student; of a divided vocabulary, this device's columns.
        teacher_CV: Logits of the teacher; None where no term needs them.
        labels_C: Target ids.
        counts_C: 1.0 where a token counts, 0.0 elsewhere.
        vocabulary: Reductions over the whole vocabulary.
        kl_weights_C: Weights of the tokens in the KL term; None if they are all 1.
    """

    student_CV: Array
    teacher_CV: Array | None
    labels_C: Array
    counts_C: Array
    vocabulary: Vocabulary
    kl_weights_C: Array | None = None

    @functools.cached_property
    def student_norms(self) -> RowNorms:
        """The norms of the student's rows at temperature 1."""
        return self.row_norms(self.student_CV, 1.0)

    def row_norms(self, logits_CV: Array, temperature: float | Array) -> RowNorms:
        """Return the norms of rows of logits, for :func:`log_probs`."""
        shift_C1 = jax.lax.optimization_barrier(self.vocabulary.max(logits_CV))
        exp_CV = jnp.exp((logits_CV - shift_C1) / temperature)
        log_sum_C1 = jnp.log(self.vocabulary.sum(exp_CV, keepdims=True))
        return jax.lax.optimization_barrier(RowNorms(shift_C1, log_sum_C1))

    def sum(self, loss_C: Array) -> Array:
        """Add up the losses of the tokens that count."""
        return (loss_C * self.counts_C).sum()


Targets = tuple[Array, Array | None, Array]
"""Labels, weights in the KL term (None if all are 1) and mask of chunks of tokens, [K, C] each."""


class _Objective(NamedTuple):
    """Everything static about the sums."""

    terms: tuple[Any, ...]
    vocabulary: Vocabulary


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    objective: _Objective,
    student_KCD: Array,
    student_VD: Array,
    teacher: tuple[Array, Array] | None,
    targets: Targets,
    values: tuple[TermValues, ...],
) -> TokenLossSums:
    return _over_chunks(objective, student_KCD, student_VD, teacher, targets, values, with_gradient=False)[0]


def _chunked_forward(*arguments: Any) -> tuple[TokenLossSums, tuple[Array, Array]]:
    return _over_chunks(*arguments, with_gradient=True)


def _chunked_backward(
    objective: _Objective, gradients: tuple[Array, Array], cotangents: TokenLossSums
) -> tuple[Array, Array, None, None, None]:
    hidden_KCD, embedding_VD = gradients
    scale = cotangents.total
    hidden_KCD = hidden_KCD * scale.astype(hidden_KCD.dtype)
    return hidden_KCD, embedding_VD * scale.astype(embedding_VD.dtype), None, None, None


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _over_chunks(
    objective: _Objective,
    student_KCD: Array,
    student_VD: Array,
    teacher: tuple[Array, Array] | None,
    targets: Targets,
    values: tuple[TermValues, ...],
    *,
    with_gradient: bool,
) -> tuple[TokenLossSums, tuple[Array, Array]]:
    """Scan the chunks; with a gradient, the embedding's is accumulated in float32."""
    teacher_KCD, teacher_VD = (None, None) if teacher is None else teacher
    zero = jnp.zeros((), jnp.float32)
    no_sums = TokenLossSums(zero, {term.metric: zero for term in objective.terms}, zero, zero)
    no_embedding = jnp.zeros(student_VD.shape if with_gradient else (0, 0), jnp.float32)

    def compute(carry: tuple, chunk: tuple) -> tuple:
        sums, embedding_gradient_VD = carry
        student_CD, teacher_CD, labels_C, kl_weights_C, mask_C = chunk
        logits = LogitsChunk(
            student_CV=_project(student_CD, student_VD),
            teacher_CV=None if teacher_VD is None else _project(teacher_CD, teacher_VD),
            labels_C=labels_C,
            counts_C=mask_C.astype(jnp.float32),
            vocabulary=objective.vocabulary,
            kl_weights_C=kl_weights_C,
        )
        added, slope_CV = _chunk_losses(objective.terms, values, logits)
        sums = jax.tree.map(jnp.add, sums, added)
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
    terms: tuple[Any, ...], values: tuple[TermValues, ...], chunk: LogitsChunk
) -> tuple[TokenLossSums, Array]:
    """Return the sums of one chunk and ∂total/∂logits, all float32."""
    losses = {term.metric: jnp.zeros((), jnp.float32) for term in terms}
    totals, slopes = [], []
    for term, changed in zip(terms, values, strict=True):
        if term.needs_teacher and (chunk.teacher_CV is None or not peak(term.weight)):
            continue
        weight = changed.get("weight", term.weight)
        losses[term.metric], gradient_CV = with_values(term, changed).sum_and_gradient(chunk)
        totals.append(weight * losses[term.metric])
        slopes.append(weight * gradient_CV)
    total, slope_CV = functools.reduce(jnp.add, totals), functools.reduce(jnp.add, slopes)
    # Not an argmax, which takes a CPU longer than a softmax.
    is_correct_C1 = chunk.vocabulary.pick(chunk.student_CV, chunk.labels_C) == chunk.student_norms.shift_C1
    sums = TokenLossSums(total, losses, chunk.sum(is_correct_C1[:, 0]), chunk.counts_C.sum())
    return sums, slope_CV * chunk.counts_C[:, None]
