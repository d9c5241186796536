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
        topology: Product name of the TPU slice: v4-8, v5e-8, v5p-8, v6e-8, tpu7x-8 or a larger one.
        compare: Slices for a table instead of one plan, separated by commas, each with the price of one of
            its chips for an hour if that is not price_per_chip_hour: v4-8:3.22,v5e-8:1.20. Only the given
            batch is compiled for each.
        what: train for one training step, generate for one decoding step of the student, or label for a batch
            that the teacher labels: its encoder, and its decoding steps.
        label_length: Number of tokens per sample, prompt included, that the step is compiled for.
        label_mix: Shares of the batches by label length, for a table of their steps and of the mean step:
            64:0.2,128:0.7,256:0.1. Each length is compiled with the given batch.
        search_seconds: Time limit in seconds of the search for the largest batch. Two batches are compiled in
            any case; another one only if its compilation would probably end within the limit. With 0 only the
            given batch is compiled.
        price_per_chip_hour: Price of one chip for an hour, in any currency, for the cost of the training and
            of 1,000 hours of speech.
        json: File to write the plan to, as JSON.

    Raises:
        InputError: If a value is unknown or out of range.
    """

    topology: str = "v4-8"
    compare: str | None = None
    what: str = "train"
    label_length: int = 128
    label_mix: str | None = None
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
        if self.what not in ("train", "generate", "label"):
            raise InputError(f"what {self.what!r} is unknown: expected train, generate or label")
        if self.label_mix is not None and self.what != "train":
            raise InputError(f"label_mix is about training steps: leave it out with what {self.what}")
        for name, price in self.slices:
            check_topology(name)
            if price is not None and price < 0:
                raise InputError(f"compare has the price {price:g} for {name}, which is below 0")
        for length, share in self.label_shares:
            if length < 1 or share <= 0:
                raise InputError(f"label_mix {self.label_mix!r} needs lengths and shares above 0")
        check_positive(self, "label_length")
        if self.price_per_chip_hour is not None and self.price_per_chip_hour < 0:
            raise InputError(f"price_per_chip_hour {self.price_per_chip_hour:g} is below 0")

    @property
    def slices(self) -> list[tuple[str, float | None]]:
        """The slices to compare, each with its own price; none if there is one plan."""
        return [
            (name, _number("compare", price) if colon else None)
            for name, colon, price in _entries(self.compare)
        ]

    @property
    def label_shares(self) -> list[tuple[int, float]]:
        """Lengths of labels with their shares of the batches, which need not add up to 1; often none."""
        return [
            (int(_number("label_mix", length)), _number("label_mix", share))
            for length, _, share in _entries(self.label_mix)
        ]

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


def _entries(text: str | None) -> list[tuple[str, str, str]]:
    """Return the entries of a list with commas, each divided at its first colon."""
    return [entry.strip().partition(":") for entry in text.split(",")] if text else []


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        example = {"compare": "v4-8:3.22,v5e-8:1.20", "label_mix": "64:0.2,128:0.7,256:0.1"}[flag]
        raise InputError(f"{flag} has {text!r} instead of a number: expected such as {example}") from None
