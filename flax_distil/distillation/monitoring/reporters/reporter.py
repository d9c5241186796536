"""What a service must be able to take."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from flax_distil.distillation.evaluation.predictions import Prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many numbers lie where.

    Attributes:
        edges: Edges of the bins, ascending, float64 [N + 1], from the least to the largest number.
        counts: Numbers in each bin, float64 [N].
        mean_square: Mean of their squares.
    """

    edges: np.ndarray
    counts: np.ndarray
    mean_square: float


class Reporter(Protocol):
    """A service that shows what a run reports; any method may raise, and then loses what it was given."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report values of a step; some may not be finite."""

    def predictions(self, step: int, by_set: Mapping[str, Sequence[Prediction]]) -> None:
        """Report what the student says about samples of each evaluation set."""

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        """Report the distribution of weights by name."""

    def close(self) -> None:
        """Deliver what is left."""
