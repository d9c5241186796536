"""How good and how fast: word errors, how sure they are, signs of hallucination, throughput.

Sums first, ratios last.
"""

from flax_distil.metrics.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    bootstrap_p_value,
    matched_pairs_p_value,
    percentile_interval,
    resampled_sums,
)
from flax_distil.metrics.hallucination import compression_ratio, repeated_ngrams, token_compression_ratio
from flax_distil.metrics.throughput import Throughput
from flax_distil.metrics.word_diff import DiffPart, word_diff
from flax_distil.metrics.word_errors import ErrorCounts, sample_wer, word_errors

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "DiffPart",
    "ErrorCounts",
    "Interval",
    "Throughput",
    "bootstrap_p_value",
    "compression_ratio",
    "matched_pairs_p_value",
    "percentile_interval",
    "repeated_ngrams",
    "resampled_sums",
    "sample_wer",
    "token_compression_ratio",
    "word_diff",
    "word_errors",
]
