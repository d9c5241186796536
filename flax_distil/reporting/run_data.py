"""What a training run has written so far; whatever is missing or damaged is left out."""

import dataclasses
import datetime
import json
import math
import time
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.svg_plot import Points
from flax_distil.distillation.evaluation.predictions import Prediction, read_predictions
from flax_distil.distillation.monitoring.goodput_record import GOODPUT_NAME
from flax_distil.distillation.monitoring.run_record import RUN_NAME
from flax_distil.distillation.monitoring.samples_record import SAMPLES_NAME
from flax_distil.distillation.monitoring.training_log import METRICS_NAME, read_metrics
from flax_distil.storage.paths import AnyPath, read_text
from flax_distil.storage.run_lock import LOCK_NAME, STALE_SECONDS

_OTHER_RESULTS = {
    "predictions/settings.json": "an evaluation, whose report.html `flax-distil eval` writes itself",
    ".labelling": "pseudo-labels, which their README.md describes",
    "throughput.json": "pseudo-labels, which their README.md describes",
    "dataset_info.json": "a data set",
    "results.json": "an evaluation, whose report.html `flax-distil eval` writes itself",
}
"""Marks of folders that other commands write, and what they hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """A training run.

    Attributes:
        folder: The ``output_dir`` of the run.
        record: Contents of ``run.json``; {} if there is none.
        metrics: Lines of ``metrics.jsonl``, of log lines and evaluations, in order.
        goodput: Contents of ``goodput.json``; {} if there is none.
        samples: Contents of ``samples.json``; {} if there is none.
        predictions: Samples that the latest evaluation kept, by data set.
        is_running: Whether a process has shown in the last minutes that it is training.
        is_exported: Whether the folder holds the weights of the student.
    """

    folder: AnyPath
    record: dict[str, Any]
    metrics: list[dict[str, Any]]
    goodput: dict[str, Any]
    samples: dict[str, Any]
    predictions: dict[str, list[Prediction]]
    is_running: bool
    is_exported: bool

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, by flag."""
        found = self.record.get("settings")
        return found if isinstance(found, dict) else {}

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The attempts of ``run.json``, the first being the oldest."""
        return _objects(self.record.get("attempts"))

    @property
    def timed_attempts(self) -> list[dict[str, Any]]:
        """The attempts of ``goodput.json``, with the seconds that each spent."""
        return _objects(self.goodput.get("attempts"))

    @property
    def step(self) -> int:
        """Number of the last update that is known of."""
        steps = [line["step"] for line in self.metrics]
        steps += [int(attempt.get("last_step", 0)) for attempt in self.timed_attempts[-1:]]
        return max(steps, default=0)

    @property
    def max_steps(self) -> int | None:
        """Number of updates of the whole run."""
        found = self.settings.get("max_steps")
        return found if isinstance(found, int) else None

    @property
    def status(self) -> str:
        """What the run is doing: "running", "finished" or "stopped"."""
        if self.is_running:
            return "running"
        is_done = self.max_steps is not None and self.step >= self.max_steps
        return "finished" if is_done and self.is_exported else "stopped"

    @property
    def evaluated_steps(self) -> list[int]:
        """Steps at which there was an evaluation."""
        return sorted({line["step"] for line in self.metrics if any(map(_is_score, line))})

    @property
    def evaluated_sets(self) -> dict[str, str]:
        """What the names of the scores of each data set begin with in the metrics, by its name."""
        prefixes = dict.fromkeys(
            name.removesuffix("wer") for line in self.metrics for name in line if _is_score(name)
        )
        only = next(iter(self.predictions), "evaluation data")
        return {prefix.removeprefix("eval_").removesuffix("_") or only: prefix for prefix in prefixes}

    def points(self, name: str, *, scale: float = 1.0) -> Points:
        """Return steps and values of a metric, times ``scale``."""
        return [
            (float(line["step"]), scale * float(line[name]))
            for line in self.metrics
            if isinstance(line.get(name), int | float) and math.isfinite(line[name])
        ]


def read_run(folder: AnyPath) -> RunData:
    """Read what a run has written.

    Raises:
        InputError: If there is no such folder, or it holds no training run.
    """
    _check(folder)
    metrics = [line for line in read_metrics(folder) if isinstance(line.get("step"), int)]
    evaluated = sorted({line["step"] for line in metrics if any(map(_is_score, line))})
    return RunData(
        folder=folder,
        record=_read_object(folder / RUN_NAME),
        metrics=metrics,
        goodput=_read_object(folder / GOODPUT_NAME),
        samples=_read_object(folder / SAMPLES_NAME),
        predictions=_latest_predictions(folder, evaluated),
        is_running=_is_running(folder),
        is_exported=any(folder.glob("model*.safetensors")),
    )


def time_text(moment: Any) -> str | None:
    """Return a time of the records as a reader likes it: ``2026-11-30 12:08 UTC``."""
    try:
        found = datetime.datetime.fromisoformat(str(moment)).astimezone(datetime.UTC)
    except ValueError:
        return None
    return found.strftime("%Y-%m-%d %H:%M UTC")


def _check(folder: AnyPath) -> None:
    if not folder.is_dir():
        raise InputError(f"run_dir {str(folder)!r} is no folder: name the output_dir of a training run")
    if (folder / METRICS_NAME).is_file() or (folder / RUN_NAME).is_file():
        return
    for mark, what in _OTHER_RESULTS.items():
        if (folder / mark).exists():
            raise InputError(f"run_dir {str(folder)!r} holds {what}: reports are made of training runs")
    raise InputError(
        f"run_dir {str(folder)!r} holds no {METRICS_NAME}: name the output_dir of a training run, which has "
        "it from the first log line on"
    )


def _latest_predictions(folder: AnyPath, steps: list[int]) -> dict[str, list[Prediction]]:
    for step in reversed(steps[-3:]):  # the last one may be damaged
        try:
            if found := read_predictions(folder, step):
                return found
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return {}


def _is_running(folder: AnyPath) -> bool:
    age = time.time() - float(_read_object(folder / LOCK_NAME).get("beat_at", 0.0))
    return abs(age) < 2 * STALE_SECONDS


def _read_object(path: AnyPath) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path)) if path.is_file() else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _objects(found: Any) -> list[dict[str, Any]]:
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _is_score(name: str) -> bool:
    return name.startswith("eval_") and name.endswith("wer")
