"""What a training run has written so far; whatever is missing or damaged is left out."""

import dataclasses
import json
import math
from typing import Any, TypeVar

from flax_distil.distillation.monitoring.goodput_record import GOODPUT_NAME
from flax_distil.distillation.monitoring.run_record import RUN_NAME
from flax_distil.distillation.monitoring.samples_record import SAMPLES_NAME
from flax_distil.distillation.monitoring.training_log import read_metrics
from flax_distil.storage.paths import AnyPath, read_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files in the ``output_dir`` of a training run.

    Attributes:
        record: Contents of ``run.json``; {} if there is none.
        metrics: Lines of ``metrics.jsonl``, of log lines and evaluations, in order.
        goodput: Contents of ``goodput.json``; {} if there is none.
        samples: Contents of ``samples.json``; {} if there is none.
    """

    record: dict[str, Any]
    metrics: list[dict[str, Any]]
    goodput: dict[str, Any]
    samples: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, by flag."""
        return json_object(self.record.get("settings"))

    @property
    def has_divergence(self) -> bool:
        """Whether the loss has a KL divergence; the log has zeros for it where its weight is 0."""
        return self.settings.get("kl_weight") != 0

    def points(self, name: str, *, scale: float = 1.0) -> list[tuple[float, float]]:
        """Return steps and values of a metric, times ``scale``."""
        return [
            (float(line["step"]), scale * float(line[name]))
            for line in self.metrics
            if isinstance(line.get(name), int | float) and math.isfinite(line[name])
        ]


Files = TypeVar("Files", bound=RunFiles)


def read_run_files(kind: type[Files], folder: AnyPath, /, **more: Any) -> Files:
    """Read the files of a run.

    Args:
        kind: What is returned.
        folder: The ``output_dir`` of the run.
        more: The fields that ``kind`` has besides those of :class:`RunFiles`.
    """
    return kind(
        record=read_object(folder / RUN_NAME),
        metrics=[line for line in read_metrics(folder) if isinstance(line.get("step"), int)],
        goodput=read_object(folder / GOODPUT_NAME),
        samples=read_object(folder / SAMPLES_NAME),
        **more,
    )


def read_object(path: AnyPath) -> dict[str, Any]:
    """Return the object that a JSON file holds; {} if it is missing or damaged, or holds something else."""
    try:
        return json_object(json.loads(read_text(path))) if path.is_file() else {}
    except (OSError, ValueError):
        return {}


def json_object(value: Any) -> dict[str, Any]:
    """Return a value of a JSON file if it is an object, and otherwise {}."""
    return value if isinstance(value, dict) else {}
