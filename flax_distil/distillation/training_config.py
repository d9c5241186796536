"""Settings of the training step: loss, optimizer, learning rates, and which parameters stay as they are."""

import dataclasses
import math
from typing import Any

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import setting

SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "constant",
    "constant_with_warmup", "inverse_sqrt", "warmup_stable_decay",
)  # fmt: skip
"""Values of ``lr_scheduler_type``."""

SCHEDULE_PARAMETERS = (
    "num_cycles", "power", "lr_end", "timescale", "min_lr", "min_lr_rate", "num_decay_steps", "min_lr_ratio",
)  # fmt: skip
"""What ``lr_scheduler_kwargs`` may name."""

ENDING_SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "warmup_stable_decay",
)  # fmt: skip
"""Schedules that come to their end at ``max_steps``."""


LOSS_SCHEDULES = ("constant", "linear", "cosine")
"""What a weight or the temperature of the loss may do over a run."""

SCHEDULED = ("ce_weight", "kl_weight", "mse_weight", "temperature")
"""Settings of the loss that have a schedule, each in a setting of its name and ``_schedule``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Loss.

    Attributes:
        ce_weight: Weight of the cross-entropy on the labels; by default 0.8 beside a KL term, 1.0 alone.
        kl_weight: Weight of the KL divergence from the teacher; by default 1.0 with a teacher, 0 without.
            With 0 the teacher's predictions are not computed.
        mse_weight: Weight of the mean squared difference between hidden states of student and teacher.
        temperature: Temperature T of both softmaxes of the KL term, which is scaled by T².
        beta: Divergence of the KL term: 0 for KL(teacher ‖ student), 1 for KL(student ‖ teacher), and the
            generalized Jensen-Shannon divergence in between. An evaluation always reports the first.
        label_smoothing_factor: Share of the cross-entropy's target that is spread evenly over the vocabulary
            while training.
        ce_weight_schedule: How ce_weight goes on from its value at the first update: constant, or linear or
            cosine with the value at the last update behind a colon, such as cosine:0.2.
        kl_weight_schedule: The same for kl_weight.
        mse_weight_schedule: The same for mse_weight.
        temperature_schedule: The same for temperature, such as linear:1.

    Raises:
        InputError: If a value is out of range.

    Source: Distil-Whisper, arXiv 2311.00430, section 3; beta: GKD, arXiv 2306.13649, section 2, as in
    ``trl.GKDConfig``; schedules: teacher annealing, BAM!, arXiv 1907.04829 (linear weights), and
    Annealing-KD, arXiv 2104.07163 (temperature).
    """

    ce_weight: float | None = None
    kl_weight: float | None = None
    mse_weight: float = 0.0
    temperature: float = 2.0
    beta: float = 0.0
    label_smoothing_factor: float = 0.0
    ce_weight_schedule: str = "constant"
    kl_weight_schedule: str = "constant"
    mse_weight_schedule: str = "constant"
    temperature_schedule: str = "constant"

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
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta {self.beta} is not between 0 and 1")
        for name in SCHEDULED:
            _, end = self.schedule(name)
            if end is not None and (end < 0 or (name == "temperature" and end == 0)):
                raise InputError(
                    f"{name}_schedule {getattr(self, f'{name}_schedule')!r} ends at {end:g}: expected a "
                    f"value {'above 0' if name == 'temperature' else 'of at least 0'}"
                )

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher takes part in the loss, not only in the initialization of the student."""
        return self.kl_weight is None or self.peak("kl_weight") > 0 or self.peak("mse_weight") > 0

    def schedule(self, name: str) -> tuple[str, float | None]:
        """Return what the schedule of a setting is called, and its last value; None where it is constant.

        Raises:
            InputError: If the schedule is unknown, or its last value is missing or no number.
        """
        text = getattr(self, f"{name}_schedule")
        kind, _, end = text.partition(":")
        if kind == "constant" and not end:
            return kind, None
        try:
            last = float(end)
        except ValueError:
            last = math.nan
        if kind not in LOSS_SCHEDULES[1:] or not math.isfinite(last):
            raise InputError(
                f"{name}_schedule {text!r} is unknown: expected constant, or linear or cosine with the last "
                "value behind a colon, such as linear:0.5"
            )
        return kind, last

    def peak(self, name: str) -> float:
        """Return the largest value that a setting with a schedule has over the run; 0 where it is open."""
        return max(getattr(self, name) or 0.0, self.schedule(name)[1] or 0.0)

    def complete(self, *, has_teacher: bool) -> "LossConfig":
        """Return these settings with the weights that depend on whether there is a teacher."""
        kl = float(has_teacher) if self.kl_weight is None else self.kl_weight
        decided = dataclasses.replace(self, kl_weight=kl)
        ce = (0.8 if decided.peak("kl_weight") > 0 else 1.0) if self.ce_weight is None else self.ce_weight
        return dataclasses.replace(decided, ce_weight=ce)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """On-policy distillation.

    Attributes:
        lmbda: Share of the updates in which the student writes the decoder input itself, by sampling behind
            the prompt of each label, and learns from what the teacher thinks of it; the loss is then the
            KL term, without the labels.
        on_policy_temperature: Temperature at which the student samples; 0 takes the most likely tokens.

    Raises:
        InputError: If a value is out of range.

    Source: GKD, arXiv 2306.13649, algorithm 1, as in ``trl.GKDConfig``.
    """

    lmbda: float = 0.0
    on_policy_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lmbda <= 1:
            raise InputError(f"lmbda {self.lmbda} is not between 0 and 1")
        if not 0 <= self.on_policy_temperature < math.inf:
            raise InputError(
                f"on_policy_temperature {self.on_policy_temperature} is not a number of at least 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate and length of the training.

    Attributes:
        max_steps: Number of optimizer updates; by default as many as num_train_epochs take.
        num_train_epochs: Number of passes over the training data, where max_steps is not given.
        learning_rate: Peak learning rate.
        warmup_steps: Number of updates from a learning rate of 0 to the peak.
        lr_scheduler_type: Learning rates after the warm-up, as transformers names them: linear (to 0),
            cosine, cosine_with_restarts, cosine_with_min_lr, polynomial, constant (without a warm-up),
            constant_with_warmup, inverse_sqrt or warmup_stable_decay.
        lr_scheduler_kwargs: Parameters of the schedule, as transformers names them: num_cycles of the
            schedules with a cosine, min_lr or min_lr_rate of cosine_with_min_lr, power and lr_end of
            polynomial, timescale of inverse_sqrt, num_decay_steps (always needed) and min_lr_ratio of
            warmup_stable_decay; for example '{"num_cycles": 2}'.

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

    @property
    def min_lr_ratio(self) -> float:
        """Share of the peak that cosine_with_min_lr and warmup_stable_decay do not fall below."""
        if self.lr_scheduler_type == "warmup_stable_decay":
            return float(self.parameter("min_lr_ratio", 0.0))
        if (lowest := self.parameter("min_lr", None)) is not None:
            return float(lowest / self.learning_rate) if self.learning_rate else 0.0
        return float(self.parameter("min_lr_rate", 0.0))

    @property
    def decay_steps(self) -> int:
        """Number of updates at the end in which the rate of warmup_stable_decay falls."""
        return int(self.parameter("num_decay_steps", 0))

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
        if self.lr_scheduler_type == "cosine_with_min_lr" and ("min_lr" in given) == ("min_lr_rate" in given):
            raise InputError(
                "cosine_with_min_lr takes either min_lr or min_lr_rate in lr_scheduler_kwargs, and "
                f"{given} has both or neither: give one of them"
            )
        if self.lr_scheduler_type == "warmup_stable_decay":
            self._check_decay()
        if not 0 <= self.min_lr_ratio <= 1:
            raise InputError(
                f"lr_scheduler_kwargs {given} make the lowest learning rate {self.min_lr_ratio:g} times the "
                "peak: expected 0 to 1 times"
            )

    def _check_decay(self) -> None:
        steps, decay = self.max_steps, self.decay_steps
        if decay < 1:
            raise InputError(
                f"warmup_stable_decay falls over the last num_decay_steps updates, and they are {decay}: "
                "give a number above 0 in lr_scheduler_kwargs"
            )
        if steps is not None and self.warmup_steps + decay > steps:
            raise InputError(
                f"warmup_steps {self.warmup_steps} and num_decay_steps {decay} of lr_scheduler_kwargs are "
                f"more than max_steps {steps}: lower one of them"
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
