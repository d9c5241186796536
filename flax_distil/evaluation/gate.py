"""Conditions under which an evaluation fails, for whoever runs one after every training."""

import dataclasses
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.nested import nearest_name

FIGURES = (
    "wer", "wer_open_asr_leaderboard", "macro_wer", "wer_ortho", "cer", "cer_ortho", "insertion_rate",
    "deletion_rate", "substitution_rate", "repeated_5grams", "rtfx", "tokens_per_second", "skipped",
    "difference", "mean_wer", "non_speech_with_text",
)  # fmt: skip
"""What a condition may be about: totals over all data sets without noise, the difference of ``wer`` from the
baseline, the mean over the sets of a group of the Open ASR Leaderboard, and the share of clips without speech
that have a text without thresholds, in percent."""

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailCondition:
    """A figure and the values of it with which an evaluation fails.

    Attributes:
        figure: One of :data:`FIGURES`.
        comparison: One of ``>``, ``>=``, ``<`` and ``<=``.
        limit: What the figure is compared with.
    """

    figure: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.limit:g}"

    def failure(self, model: str, value: float | int | None) -> str | None:
        """Return the sentence of a failure; None where a model passes. An unknown value is a failure."""
        if value is None:
            return f"{model}: {self.figure} is not known, and fail_if asks about it: {self}"
        if not _OPERATORS[self.comparison](value, self.limit):
            return None
        return f"{model}: {self.figure} is {value:.4g}, and fail_if says {self}"


def parse_condition(text: str) -> FailCondition:
    """Return the condition that a text such as ``wer > 12.5`` describes.

    Raises:
        InputError: If it is of another form, or its figure is unknown.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+]?\d*\.?\d+)\s*%?\s*", text)
    if found is None:
        raise InputError(f"fail_if {text!r} is no condition: expected a figure, >, >=, < or <=, and a number")
    figure, comparison, limit = found.groups()
    if figure not in FIGURES:
        raise InputError(
            f"fail_if {text!r} is about an unknown figure{nearest_name(figure, FIGURES)}: expected one of "
            f"{', '.join(FIGURES)}"
        )
    return FailCondition(figure=figure, comparison=comparison, limit=float(limit))


def find_failures(conditions: Sequence[FailCondition], results: dict[str, Any]) -> list[str]:
    """Return a sentence for every model that fails a condition.

    Args:
        conditions: The conditions.
        results: What ``results.json`` holds.
    """
    return [
        sentence
        for condition in conditions
        for model, value in _values(condition.figure, results)
        if (sentence := condition.failure(model, value)) is not None
    ]


def _values(figure: str, results: dict[str, Any]) -> Iterator[tuple[str, float | int | None]]:
    """Yield a figure of every model without noise; of the baseline there is no difference."""
    for model, entry in results["models"].items():
        condition, total = next(iter(entry["total"].items()))
        if figure == "mean_wer":
            groups = results.get("open_asr_leaderboard", {}).get(model, {"groups": {}})["groups"]
            yield from ((model, group["mean_wer"]) for group in groups.values() or [{"mean_wer": None}])
        elif figure == "non_speech_with_text":
            yield model, entry.get("non_speech", {}).get("thresholds_off", {}).get("with_text")
        elif figure != "difference":
            yield model, total[figure]
        elif model != results["baseline"]:
            (line,) = (
                line
                for line in results["comparisons"]
                if (line["model"], line["data_set"], line["condition"]) == (model, None, condition)
            )
            yield model, line["difference"]
