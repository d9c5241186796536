"""What the files of a run tell its card: settings, data, losses and evaluations up to a step."""

import dataclasses
from typing import Any

from flax_distil.distillation.monitoring.run_files import RunFiles, json_object, read_run_files
from flax_distil.distillation.saving.best_model import BestModel, score_prefixes
from flax_distil.storage.paths import AnyPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary(RunFiles):
    """A training run up to a step.

    Attributes:
        step: The last step that is known of.
    """

    step: int

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Student and teacher, as ``describe_origins`` describes them."""
        return json_object(self.record.get("models"))

    def data_sets(self, use: str) -> list[dict[str, Any]]:
        """Return the data sets for "training" or "evaluation"."""
        found = self.record.get("data_sets")
        return [entry for entry in found if entry.get("use") == use] if isinstance(found, list) else []

    def counts(self, name: str) -> dict[str, dict[str, Any]]:
        """Return rows and seconds of a training set that were kept, or dropped for a reason, by that."""
        return json_object(json_object(self.samples.get("dropped")).get(name))

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


def read_run_summary(folder: AnyPath, *, step: int | None = None) -> RunSummary | None:
    """Read what a run has written up to a step, or all of it; None if the folder holds no run."""
    found = read_run_files(RunSummary, folder, step=step or 0)
    if not found.record:
        return None
    if step is None:
        return dataclasses.replace(found, step=max((line["step"] for line in found.metrics), default=0))
    return dataclasses.replace(found, metrics=[line for line in found.metrics if line["step"] <= step])
