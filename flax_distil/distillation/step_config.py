"""Everything static about a training step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.errors import InputError
from flax_distil.distillation.schedules import has_schedule, peak
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.text.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicy:
    """How the student writes decoder inputs itself; see ``distillation/on_policy.py``.

    Attributes:
        lmbda: Share of the steps in which it does.
        temperature: Temperature at which it samples; 0 takes the most likely tokens.
        special: Ids of the vocabulary.
    """

    lmbda: float
    temperature: float
    special: SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StepConfig:
    """Everything static about a step.

    Attributes:
        student: Shape of the student, with its dropouts.
        teacher: Shape of the teacher; None for fine-tuning on the labels alone.
        student_options: How the student computes.
        teacher_options: How the teacher and a shared encoder compute.
        terms: Terms of the training loss by name, as in ``distillation/loss.py``.
        evaluation_terms: Terms of the loss of an evaluation; only those on label tokens are computed.
        augmentation: What is done to the audio while training.
        on_policy: How the student writes decoder inputs itself; None if it never does.
        max_steps: Number of updates of the run, where a term has a schedule.
        seed: Number that decides on dropout, and on what the student writes.
        gradient_dtype: Element type of the gradients; "bfloat16" differentiates with respect to a bfloat16
            copy of the parameters (precision ``full_mixed``).
        chunk_size: Number of label tokens whose logits exist at one time.
        batch_axes: Mesh axes that divide the batch, inside ``shard_map`` or ``pmap``; none on one device.

    Raises:
        InputError: If student and teacher do not share vocabulary and mel bins.
    """

    student: WhisperConfig
    teacher: WhisperConfig | None
    student_options: ComputeOptions
    teacher_options: ComputeOptions
    terms: Mapping[str, Any]
    evaluation_terms: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    on_policy: OnPolicy | None = None
    max_steps: int | None = None
    seed: int = 0
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
                    "distil a student initialized from this teacher"
                )

    @property
    def needs_layers(self) -> bool:
        """Whether a term of the training loss reads the output of every layer."""
        return any(
            getattr(term, "needs_layers", False) and peak(term.weight) > 0 for term in self.terms.values()
        )

    def lasting(self, max_steps: int | None) -> "StepConfig":
        """Return the configuration for a run of so many updates; the same one without a schedule."""
        if not any(map(has_schedule, self.terms.values())):
            return self
        return dataclasses.replace(self, max_steps=max_steps)
