"""How good and how fast: word errors, signs of hallucination, throughput. Sums first, ratios last."""

from flax_distil.metrics.hallucination import compression_ratio, repeated_ngrams, token_compression_ratio
from flax_distil.metrics.throughput import Throughput
from flax_distil.metrics.word_errors import ErrorCounts, sample_wer, word_errors

__all__ = [
    "ErrorCounts",
    "Throughput",
    "compression_ratio",
    "repeated_ngrams",
    "sample_wer",
    "token_compression_ratio",
    "word_errors",
]
