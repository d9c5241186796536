"""Configuration of a plan: the distillation that is planned, and the TPU it is planned for."""

import dataclasses

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested, replace
from flax_distil.decoding.options import SearchOptions
from flax_distil.distillation.config import DistillConfig
from flax_distil.planning.chips import check_topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Estimate whether a distillation fits on a TPU and how fast it could be; nothing is allocated or run.

    Accepts the flags of distil, and compiles the very step that distil would run.

    Attributes:
        topology: Product name of the TPU slice: v4-8, v5e-8, v5p-8, v6e-8 or a larger one.
        what: train for one training step, or generate for one decoding step of the student.
        label_length: Number of tokens per sample, prompt included, that the step is compiled for.
        search_seconds: Time limit in seconds of the search for the largest batch. Two batches are compiled in
            any case; another one only if its compilation would probably end within the limit. With 0 only the
            given batch is compiled.
        price_per_chip_hour: Price of one chip for an hour, in any currency, for the cost of the training.
        json: File to write the plan to, as JSON.

    Raises:
        InputError: If a value is unknown or out of range.
    """

    topology: str = "v4-8"
    what: str = "train"
    label_length: int = 128
    search: SearchOptions = nested(
        SearchOptions(),
        show={"num_beams"},
        help={"num_beams": "Number of beams of the student's decoding, with what generate."},
        section="Main flags",
    )
    search_seconds: float = 240.0
    price_per_chip_hour: float | None = None
    json: str | None = None
    run: DistillConfig = nested(
        defaults={"train_dataset_name": "", "output_dir": ""},
        types={"output_dir": str},
        help={
            "train_dataset_name": "Not read by a plan.",
            "output_dir": "Not written by a plan.",
            "overwrite_output_dir": "Replace the checkpoints, logs and student of an earlier run in "
            "output_dir; other files stay. A plan replaces nothing.",
            "dry_run": "Makes no difference to a plan.",
        },
        section="Training",
    )

    def __post_init__(self) -> None:
        check_topology(self.topology)
        if self.what not in ("train", "generate"):
            raise InputError(f"what {self.what!r} is unknown: expected train or generate")
        check_positive(self, "label_length")
        if self.price_per_chip_hour is not None and self.price_per_chip_hour < 0:
            raise InputError(f"price_per_chip_hour {self.price_per_chip_hour:g} is below 0")

    @property
    def planned_run(self) -> DistillConfig:
        """The distillation as it computes on a TPU, with the fewest updates that its schedule allows.

        The number of updates does not change the step.
        """
        return replace(
            self.run,
            teacher_dtype=self.run.teacher.teacher_dtype or "bfloat16",
            max_steps=self.run.optimizer.max_steps or self.run.optimizer.warmup_steps + 1,
        )
