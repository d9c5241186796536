"""Settings of the training step: loss, optimizer, learning rates, and which parameters stay as they are."""

import dataclasses
import math
from typing import Any

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import setting

SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
)  # fmt: skip
"""Values of ``lr_scheduler_type``."""

SCHEDULE_PARAMETERS = ("num_cycles", "power", "lr_end", "timescale")
"""What ``lr_scheduler_kwargs`` may name."""

ENDING_SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial")
"""Schedules that come to their end at ``max_steps``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Loss.

    Attributes:
        ce_weight: Weight of the cross-entropy on the labels; by default 0.8 beside a KL term, 1.0 alone.
        kl_weight: Weight of the KL divergence from the teacher; by default 1.0 with a teacher, 0 without.
            With 0 the teacher's predictions are not computed.
        mse_weight: Weight of the mean squared difference between hidden states of student and teacher.
        temperature: Temperature T of both softmaxes of the KL term, which is scaled by T².
        label_smoothing_factor: Share of the cross-entropy's target that is spread evenly over the vocabulary
            while training.

    Raises:
        InputError: If a value is out of range.

    Source: Distil-Whisper, arXiv 2311.00430, section 3.
    """

    ce_weight: float | None = None
    kl_weight: float | None = None
    mse_weight: float = 0.0
    temperature: float = 2.0
    label_smoothing_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ce_weight", "kl_weight", "mse_weight"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} {value} is negative: expected 0 or more")
        if self.temperature <= 0:
            raise InputError(f"temperature {self.temperature} is not positive")
        if not 0 <= self.label_smoothing_factor < 1:
            raise InputError(
                f"label_smoothing_factor {self.label_smoothing_factor} is not between 0 and 1 (exclusive)"
            )

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher takes part in the loss, not only in the initialization of the student."""
        return self.kl_weight != 0 or self.mse_weight > 0

    def complete(self, *, has_teacher: bool) -> "LossConfig":
        """Return these settings with the weights that depend on whether there is a teacher."""
        kl = float(has_teacher) if self.kl_weight is None else self.kl_weight
        ce = (0.8 if kl > 0 else 1.0) if self.ce_weight is None else self.ce_weight
        return dataclasses.replace(self, ce_weight=ce, kl_weight=kl)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate and length of the training.

    Attributes:
        max_steps: Number of optimizer updates; by default as many as num_train_epochs take.
        num_train_epochs: Number of passes over the training data, where max_steps is not given.
        learning_rate: Peak learning rate.
        warmup_steps: Number of updates from a learning rate of 0 to the peak.
        lr_scheduler_type: Learning rates after the warm-up, as transformers names them: linear (to 0),
            cosine, cosine_with_restarts, polynomial, constant (without a warm-up), constant_with_warmup or
            inverse_sqrt.
        lr_scheduler_kwargs: Parameters of the schedule, as transformers names them: num_cycles of cosine and
            cosine_with_restarts, power and lr_end of polynomial, timescale of inverse_sqrt; for example
            '{"num_cycles": 2}'.

    Raises:
        InputError: If a value is out of range.

    Source: ``transformers.get_scheduler``.
    """

    max_steps: int | None = None
    num_train_epochs: float = 3.0
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_positive(self, "max_steps")
        if self.num_train_epochs <= 0:
            raise InputError(f"num_train_epochs {self.num_train_epochs} is not positive")
        if self.lr_scheduler_type not in SCHEDULES:
            raise InputError(
                f"lr_scheduler_type {self.lr_scheduler_type!r} is unknown: "
                f"expected one of {', '.join(SCHEDULES)}"
            )
        if self.warmup_steps < 0:
            raise InputError(f"warmup_steps {self.warmup_steps} is negative")
        if not 0 <= self.learning_rate < math.inf:
            raise InputError(f"learning_rate {self.learning_rate} is not a finite number of at least 0")
        steps = self.max_steps
        if steps is not None and self.lr_scheduler_type in ENDING_SCHEDULES and self.warmup_steps >= steps:
            raise InputError(
                f"warmup_steps {self.warmup_steps} must be below max_steps {steps}, "
                "or the peak learning rate is never reached"
            )
        self._check_parameters(self.lr_scheduler_kwargs or {})

    def parameter(self, name: str, default: Any) -> Any:
        """Return a parameter of the schedule, or its default where it is not given."""
        return (self.lr_scheduler_kwargs or {}).get(name, default)

    @property
    def lr_end(self) -> float:
        """The last learning rate of the polynomial schedule."""
        return float(self.parameter("lr_end", 1e-7))

    def _check_parameters(self, given: dict[str, float]) -> None:
        if unknown := sorted(set(given) - set(SCHEDULE_PARAMETERS)):
            raise InputError(
                f"lr_scheduler_kwargs names {unknown[0]!r}: expected {', '.join(SCHEDULE_PARAMETERS)}"
            )
        for name in ("num_cycles", "power"):
            if name in given and not 0 < given[name] < math.inf:
                raise InputError(f"{name} {given[name]} of lr_scheduler_kwargs is not a positive number")
        if given.get("timescale", 1) < 1:
            raise InputError(f"timescale {given['timescale']} of lr_scheduler_kwargs is below 1")
        if self.lr_scheduler_type == "polynomial" and not 0 <= self.lr_end < self.learning_rate:
            raise InputError(
                f"lr_end {self.lr_end} of lr_scheduler_kwargs is not between 0 and the learning_rate "
                f"{self.learning_rate}, from which it falls"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ScheduleConfig):
    """Optimizer.

    Attributes:
        adam_beta1: Decay rate of AdamW's first moment.
        adam_beta2: Decay rate of AdamW's second moment.
        adam_epsilon: Number that is added to the root of the second moment.
        weight_decay: Decoupled weight decay; never applied to biases and norms.
        max_grad_norm: Global norm at which gradients are clipped; 0 does not clip.
        bfloat16_moments: Whether both moments are stored in bfloat16, which precision decides; the update is
            computed in float32.
    """

    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bfloat16_moments: bool = setting(False, hidden=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Frozen parts of the student.

    The encoder's sinusoidal positions are always frozen.

    Attributes:
        freeze_encoder: Do not train the student's encoder; it is then shared with the teacher where the two
            are equal. By default an encoder is frozen if it is the teacher's, or if there is no teacher, and
            trained otherwise.
        freeze_decoder: Do not train the student's decoder, except for the token embedding.
        freeze_embed_positions: Do not train the decoder's position embedding.

    Source: distil-whisper, ``training/run_distillation.py``.
    """

    freeze_encoder: bool | None = None
    freeze_decoder: bool = False
    freeze_embed_positions: bool = False

    def is_trainable(self, path: str) -> bool:
        """Say whether the leaf at ``path`` (as ``decoder/norm/scale``) is trained.

        An encoder of which nothing is said is taken to be frozen.
        """
        if path.startswith("encoder/"):
            return path != "encoder/position_embedding/embedding" and self.freeze_encoder is False
        if path == "decoder/token_embedding/embedding":
            return True
        if path == "decoder/position_embedding/embedding" and self.freeze_embed_positions:
            return False
        return not self.freeze_decoder
