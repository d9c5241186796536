"""A training run as its report shows it; whatever is missing or damaged is left out."""

import dataclasses
import datetime
import time
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.distillation.evaluation.predictions import Prediction, read_predictions
from flax_distil.distillation.monitoring.run_files import RunFiles, read_object, read_run_files
from flax_distil.distillation.monitoring.run_record import RUN_NAME
from flax_distil.distillation.monitoring.training_log import METRICS_NAME
from flax_distil.storage.paths import AnyPath
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
class RunData(RunFiles):
    """A training run, and what its folder shows of its state.

    Attributes:
        folder: The ``output_dir`` of the run.
        predictions: Samples that the latest evaluation kept, by data set.
        is_running: Whether a process has shown in the last minutes that it is training.
        is_exported: Whether the folder holds the weights of the student.
    """

    folder: AnyPath
    predictions: dict[str, list[Prediction]]
    is_running: bool
    is_exported: bool

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


def read_run(folder: AnyPath) -> RunData:
    """Read what a run has written.

    Raises:
        InputError: If there is no such folder, or it holds no training run.
    """
    _check(folder)
    found = read_run_files(
        RunData,
        folder,
        folder=folder,
        predictions={},
        is_running=_is_running(folder),
        is_exported=any(folder.glob("model*.safetensors")),
    )
    return dataclasses.replace(found, predictions=_latest_predictions(folder, found.evaluated_steps))


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
    age = time.time() - float(read_object(folder / LOCK_NAME).get("beat_at", 0.0))
    return abs(age) < 2 * STALE_SECONDS


def _objects(found: Any) -> list[dict[str, Any]]:
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _is_score(name: str) -> bool:
    return name.startswith("eval_") and name.endswith("wer")
