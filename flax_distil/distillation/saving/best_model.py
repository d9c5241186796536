"""Which step had the best evaluation, and what evaluations before a restart have found."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flax_distil.core.errors import InputError
from flax_distil.distillation.monitoring.training_log import read_metrics
from flax_distil.parallel.processes import all_gather_object
from flax_distil.storage.paths import AnyPath

Scores = dict[str, dict[str, float]]
"""Scores of an evaluation, by data set."""

_HIGHER_IS_BETTER = ("accuracy",)
_METRICS = ("wer", "loss", "ce_loss", "kl_loss", *_HIGHER_IS_BETTER)


@dataclasses.dataclass
class BestModel:
    """The best evaluation so far.

    Attributes:
        metric: What is compared: the name of a score, for the mean over data sets, or the name of a data set,
            ``_`` and the name of a score; ``eval_`` may stand before either.
        step: Step of the best evaluation; None before the first.
        value: Its score.
    """

    metric: str
    step: int | None = None
    value: float = math.nan

    def update(self, step: int, scores: Scores) -> bool:
        """Take note of an evaluation, and return whether it is the best so far; the earlier of equals is."""
        value = score_of(self.metric, scores)
        sign = -1 if self.metric.endswith(_HIGHER_IS_BETTER) else 1
        if math.isnan(value) or not (math.isnan(self.value) or sign * value < sign * self.value):
            return False
        self.step, self.value = step, value
        return True

    def to_json(self) -> dict[str, Any] | None:
        """Return it in a form for JSON; None before the first evaluation."""
        return dataclasses.asdict(self) if self.step is not None else None

    def resume(self, saved: Mapping[str, Any] | None) -> None:
        """Take over what :meth:`to_json` returned, unless that compared something else."""
        if saved is not None and saved["metric"] == self.metric:
            self.step, self.value = saved["step"], saved["value"]


def check_metric(metric: str, names: Sequence[str]) -> None:
    """Raise ``InputError`` if evaluations of data sets with these names have no such metric."""
    expected = [*_METRICS, *(f"{name}_{score}" for name in names for score in _METRICS)]
    if metric.removeprefix("eval_") not in expected:
        raise InputError(
            f"metric_for_best_model {metric!r} is unknown: expected one of {', '.join(expected[:12])}"
        )


def score_of(metric: str, scores: Scores) -> float:
    """Return the value of a metric: the mean over data sets, or that of the one it names."""
    wanted = metric.removeprefix("eval_")
    if wanted in _METRICS:
        values = [figures.get(wanted, math.nan) for figures in scores.values()]
        return sum(values) / len(values) if values else math.nan
    for name, figures in scores.items():
        if wanted.startswith(f"{name}_") and wanted.removeprefix(f"{name}_") in figures:
            return figures[wanted.removeprefix(f"{name}_")]
    return math.nan


def score_prefixes(names: Sequence[str]) -> dict[str, str]:
    """Return what stands before the scores of each data set in the logs."""
    return {name: "eval_" if len(names) == 1 else f"eval_{name}_" for name in names}


def logged_scores(folder: AnyPath, step: int, names: Sequence[str]) -> Scores:
    """Return the scores of the evaluation of a step that the logs of a run hold; {} unless all are there.

    Args:
        folder: Folder of the run, which the leading process reads for all.
        step: Number of the step.
        names: Names of the evaluation data sets.
    """
    found: Scores = {}
    for line in read_metrics(folder) if jax.process_index() == 0 else []:
        for name, prefix in score_prefixes(names).items():
            if line["step"] == step and f"{prefix}wer" in line:
                figures = {key.removeprefix(prefix): value for key, value in line.items() if key != "step"}
                found[name] = {key: math.nan if value is None else value for key, value in figures.items()}
    return all_gather_object(found if set(found) == set(names) else {})[0]
