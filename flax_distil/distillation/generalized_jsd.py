"""The generalized Jensen-Shannon divergence, as another KL term of the loss."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from flax_distil.core.arrays import Array
from flax_distil.distillation.schedules import LossSchedule
from flax_distil.distillation.vocabulary_loss import LogitsChunk, log_probs


@dataclasses.dataclass(frozen=True)
class GeneralizedJSD:
    """The generalized Jensen-Shannon divergence of student s and teacher t, scaled by T².

    ::

        m = beta · t + (1 - beta) · s
        loss = T² (beta · KL(t ‖ m) + (1 - beta) · KL(s ‖ m))        beta between 0 and 1
        loss = T² KL(s ‖ t)                                          beta = 1

    With beta 1 the student keeps away from what the teacher finds unlikely, rather than to cover all that the
    teacher finds likely. Tokens count by the weights of their rows, as in ``KLDivergence``.

    Attributes:
        weight: Factor of the term in the loss; 0 leaves the teacher's logits out.
        temperature: T of both softmaxes, a number or a ``LossSchedule``.
        beta: Share of the teacher in the mixture, above 0 and at most 1.

    Source: GKD, arXiv 2306.13649, section 2; ``generalized_jsd_loss`` of ``trl.GKDTrainer``, which does not
    scale by T².
    """

    weight: float | LossSchedule = 1.0
    temperature: Any = 2.0
    beta: float = 0.5
    metric = "jsd_loss"
    needs_teacher = True

    def sum_and_gradient(self, chunk: LogitsChunk) -> tuple[Array, Array]:
        """Return the sum in nats, and its gradient by the student's logits.

        With r = log(s / m), or log(s / t) where beta is 1, the gradient is T (1 - beta) s (r - Σ s r), or
        T s (r - Σ s r).
        """
        assert chunk.teacher_CV is not None
        student_log_CV, teacher_log_CV, mixture_log_CV = self._log_probs(chunk)
        own_share = 1.0 if self.beta == 1 else 1.0 - self.beta
        reverse_C = chunk.vocabulary.sum(jnp.exp(student_log_CV) * (student_log_CV - mixture_log_CV))
        loss_C = own_share * reverse_C
        if self.beta < 1:
            forward_CV = jnp.exp(teacher_log_CV) * (teacher_log_CV - mixture_log_CV)
            loss_C += self.beta * chunk.vocabulary.sum(forward_CV)
        ratio_CV = student_log_CV - mixture_log_CV - reverse_C[:, None]
        gradient_CV = self.temperature * own_share * jnp.exp(student_log_CV) * ratio_CV
        if (weights_C := chunk.kl_weights_C) is not None:
            loss_C, gradient_CV = weights_C * loss_C, weights_C[:, None] * gradient_CV
        return self.temperature**2 * chunk.sum(loss_C), gradient_CV

    def _log_probs(self, chunk: LogitsChunk) -> tuple[Array, Array, Array]:
        """Return the log-probabilities of student, teacher and mixture at the temperature."""
        student_CV, teacher_CV, temperature = chunk.student_CV, chunk.teacher_CV, self.temperature
        assert teacher_CV is not None
        student_log_CV = log_probs(student_CV, chunk.row_norms(student_CV, temperature), temperature)
        teacher_log_CV = log_probs(teacher_CV, chunk.row_norms(teacher_CV, temperature), temperature)
        if self.beta == 1:
            return student_log_CV, teacher_log_CV, teacher_log_CV
        shares = jnp.log1p(-self.beta), jnp.log(self.beta)
        mixture_log_CV = jnp.logaddexp(student_log_CV + shares[0], teacher_log_CV + shares[1])
        return student_log_CV, teacher_log_CV, mixture_log_CV
