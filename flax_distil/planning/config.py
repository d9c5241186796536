"""Settings of a plan: those of the run, and what to plan for."""

import dataclasses

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.decoding.options import SearchOptions
from flax_distil.distillation.config import DistilConfig
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.planning.topologies import check_topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig(DistilConfig):
    """Say whether a distillation fits on a TPU and how fast it could go; nothing is allocated or run.

    Takes the flags of distil, and compiles the very step that distil would run.

    Attributes:
        train_dataset_name: Not read.
        output_dir: Not written.
        dry_run: Makes no difference here.
        topology: TPU slice, as it is sold: v4-8, v5e-8, v5p-8, v6e-8 and larger ones.
        what: train, or generate for one step of the student's decoding.
        label_length: Tokens per sample, prompt included, that the step is compiled for.
        num_beams: Beams of the decoding, with generate.
        search_seconds: Time for the largest batch: no third compilation begins that would probably
            end later than this after the start; 0 compiles the given batch alone.
        json: File to write the plan to, as JSON.
    """

    train_dataset_name: str = ""
    output_dir: str = ""
    topology: str = "v4-8"
    what: str = "train"
    label_length: int = 128
    num_beams: int = 1
    search_seconds: float = 240.0
    json: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_topology(self.topology)
        if self.what not in ("train", "generate"):
            raise InputError(f"what {self.what!r} is unknown: expected train or generate")
        check_positive(self, "label_length")
        _ = self.search_options

    @property
    def search_options(self) -> SearchOptions:
        """How the student decodes."""
        return SearchOptions(num_beams=self.num_beams)

    @property
    def teacher_options(self) -> ComputeOptions:
        """How the teacher computes on a TPU, whatever plans here."""
        return dataclasses.replace(self.compute, dtype=self.teacher_dtype or "bfloat16")

    @property
    def planned_steps(self) -> int:
        """The run's updates, or as many as its schedule needs at least: they do not change the step."""
        return self.max_steps or self.warmup_steps + 1
