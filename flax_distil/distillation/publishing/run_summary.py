"""What the files of a run tell its card: settings, data, losses and evaluations up to a step."""

import dataclasses
import json
import math
from typing import Any

from flax_distil.distillation.monitoring.goodput_record import GOODPUT_NAME
from flax_distil.distillation.monitoring.run_record import RUN_NAME
from flax_distil.distillation.monitoring.samples_record import SAMPLES_NAME
from flax_distil.distillation.monitoring.training_log import read_metrics
from flax_distil.distillation.saving.best_model import BestModel, score_prefixes
from flax_distil.storage.paths import AnyPath, read_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A training run up to a step.

    Attributes:
        record: Contents of ``run.json``.
        samples: Contents of ``samples.json``; {} if there is none.
        goodput: Contents of ``goodput.json``; {} if there is none.
        metrics: Lines of ``metrics.jsonl`` up to the step.
        step: The last step that is known of.
    """

    record: dict[str, Any]
    samples: dict[str, Any]
    goodput: dict[str, Any]
    metrics: list[dict[str, Any]]
    step: int

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by flag."""
        return _object(self.record.get("settings"))

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Student and teacher, as ``describe_origins`` describes them."""
        return _object(self.record.get("models"))

    def data_sets(self, use: str) -> list[dict[str, Any]]:
        """Return the data sets for "training" or "evaluation"."""
        found = self.record.get("data_sets")
        return [entry for entry in found if entry.get("use") == use] if isinstance(found, list) else []

    def counts(self, name: str) -> dict[str, dict[str, Any]]:
        """Return rows and seconds of a training set that were kept, or dropped for a reason, by that."""
        return _object(_object(self.samples.get("dropped")).get(name))

    @property
    def hours_heard(self) -> float | None:
        """Hours of audio that all updates together saw; None if the log does not tell."""
        seconds, before = 0.0, 0
        for line in self.metrics:
            if "audio_seconds_per_second" in line and "seconds_per_step" in line:
                steps, before = line["step"] - before, line["step"]
                seconds += line["audio_seconds_per_second"] * line["seconds_per_step"] * steps
        return seconds / 3600 or None

    def latest(self, prefix: str = "") -> dict[str, float]:
        """Return the latest value of each metric whose name begins with a prefix, without it."""
        found: dict[str, float] = {}
        for line in self.metrics:
            for name, value in line.items():
                if name != "step" and name.startswith(prefix) and isinstance(value, int | float):
                    found[name.removeprefix(prefix)] = float(value)
        return found

    def score_prefixes(self) -> dict[str, str]:
        """Return what stands before the scores of each evaluation set in the metrics."""
        return score_prefixes([entry["name"] for entry in self.data_sets("evaluation")])

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation by the metric of the run; None without evaluations."""
        best = BestModel(str(self.settings.get("metric_for_best_model", "wer")))
        for line in self.metrics:
            scores = {
                name: {
                    key.removeprefix(prefix): float(value) for key, value in line.items() if value is not None
                }
                for name, prefix in self.score_prefixes().items()
                if f"{prefix}wer" in line
            }
            if scores:
                best.update(line["step"], scores)
        return best.step

    def points(self, name: str) -> list[tuple[float, float]]:
        """Return steps and values of a metric."""
        return [
            (float(line["step"]), float(line[name]))
            for line in self.metrics
            if isinstance(line.get(name), int | float) and math.isfinite(line[name])
        ]


def read_run_summary(folder: AnyPath, *, step: int | None = None) -> RunSummary | None:
    """Read what a run has written up to a step, or all of it; None if the folder holds no run."""
    record = _read(folder / RUN_NAME)
    if not record:
        return None
    metrics = [line for line in read_metrics(folder) if step is None or line["step"] <= step]
    last = max((line["step"] for line in metrics), default=0)
    return RunSummary(
        record=record,
        samples=_read(folder / SAMPLES_NAME),
        goodput=_read(folder / GOODPUT_NAME),
        metrics=metrics,
        step=last if step is None else step,
    )


def _read(path: AnyPath) -> dict[str, Any]:
    try:
        return _object(json.loads(read_text(path)))
    except (OSError, ValueError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
