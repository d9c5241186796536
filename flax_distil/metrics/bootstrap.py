"""Confidence intervals of error rates, and of the difference of two models, by bootstrap.

Words of a recording fail together, so recordings are what is drawn, never words.
"""

import math
from typing import NamedTuple

import numpy as np

from flax_distil.core.arrays import Float

RESAMPLES = 2000
"""Number of draws, with which the ends of an interval vary by a few hundredths of its width."""

CONFIDENCE = 0.95

_DRAWN_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """The ends of a confidence interval."""

    low: float
    high: float


def resample_sums(
    counts_NX: Float[np.ndarray, "N X"], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "R X"]:
    """Return the sums of counts over recordings drawn with replacement, as many as there are.

    All counts of a recording are drawn together, so columns of several models stay paired.

    Args:
        counts_NX: Counts of N recordings.
        resamples: Draws R.
        seed: Seed of the resampling.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
        evaluation", ICASSP 2004.
    """
    random = np.random.default_rng(seed)
    recordings = len(counts_NX)
    sums_RX = np.zeros((resamples, counts_NX.shape[1]))
    if not recordings:
        return sums_RX
    rows = max(1, _DRAWN_AT_ONCE // recordings)
    for start in range(0, resamples, rows):
        drawn_RN = random.integers(recordings, size=(min(rows, resamples - start), recordings))
        for column, counts_N in enumerate(counts_NX.T):
            sums_RX[start : start + rows, column] = counts_N[drawn_RN].sum(axis=1)
    return sums_RX


def percentile_interval(values_R: Float[np.ndarray, " R"], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the middle ``confidence`` of resampled values; NaN where there are none."""
    finite = values_R[np.isfinite(values_R)]
    if not len(finite):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Interval(low, high)


def bootstrap_p_value(differences_R: Float[np.ndarray, " R"]) -> float:
    """Return the two-sided p-value of a difference, from resampled differences.

    It is twice the share of draws on the rarer side of 0, with draws at 0 on both sides, and one more draw on
    either side: R draws cannot show less than 2 / (R + 1).
    """
    rarer = min(int((differences_R <= 0).sum()), int((differences_R >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences_R) + 1))


def matched_pairs_p_value(differences_N: Float[np.ndarray, " N"]) -> float:
    """Return the two-sided p-value of the matched-pairs test, each recording being a segment.

    The mean difference in errors over its standard error is taken to be normally distributed, which
    asks for some tens of recordings. NaN with fewer than two, 1 where no recording differs.

    Args:
        differences_N: Errors of one model minus errors of the other in each recording.

    Source: Gillick and Cox, "Some statistical issues in the comparison of speech recognition
        algorithms", ICASSP 1989. Their segments are shorter where both models agree for some words.
    """
    if len(differences_N) < 2:
        return math.nan
    mean, deviation = float(np.mean(differences_N)), float(np.std(differences_N, ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return math.erfc(abs(mean) / deviation * math.sqrt(len(differences_N) / 2))
