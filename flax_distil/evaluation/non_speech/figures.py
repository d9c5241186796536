"""Figures about what a model writes where nobody speaks."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from flax_distil.audio.non_speech.clips import KINDS
from flax_distil.evaluation.non_speech.clip_set import THRESHOLDS_OFF, THRESHOLDS_ON
from flax_distil.evaluation.scores import ScoredRecords, Scores, without_nan
from flax_distil.metrics.bootstrap import percentile_interval, resample_sums

TEXTS_SHOWN = 5

_NAMES = {THRESHOLDS_OFF: "thresholds_off", THRESHOLDS_ON: "thresholds_on"}


def non_speech_results(units: Mapping[str, ScoredRecords], *, seed: int) -> dict[str, Any]:
    """Return the figures of one model, without and with thresholds; see docs/evaluation.md.

    Args:
        units: Scored records by the name of the set.
        seed: Seed of the intervals.
    """
    return {_NAMES[name]: _figures(unit, seed) for name, unit in units.items()}


def _figures(unit: ScoredRecords, seed: int) -> Scores:
    kinds_N = [KINDS[line.index % len(KINDS)] for line in unit.predictions]
    counts_NX = np.array([_counts(unit, row) for row in range(len(kinds_N))], float).reshape(-1, 5)
    by_kind = {
        kind: _rates(counts_NX[[found == kind for found in kinds_N]]) for kind in KINDS if kind in kinds_N
    }
    shares_R = resample_sums(counts_NX[:, :1], seed=seed)[:, 0] / max(1, len(counts_NX))
    texts = Counter(line.text.strip() for line in unit.predictions if line.text.strip())
    return _rates(counts_NX) | {
        "with_text_interval": [100 * end for end in percentile_interval(shares_R)],
        "skipped": len(unit.records.skipped),
        "texts": dict(texts.most_common(TEXTS_SHOWN)),
        "kinds": by_kind,
    }


def _counts(unit: ScoredRecords, row: int) -> list[float]:
    """Return whether a clip has any text, any word, its words, repeated runs of five words, and seconds."""
    line = unit.predictions[row]
    words = len(unit.normalize(line.text).split())
    return [*map(float, (bool(line.text.strip()), words > 0, words, unit.repeated[row], line.duration))]


def _rates(counts_NX: np.ndarray) -> Scores:
    """Return rates in percent of the clips, per hour and per clip."""
    clips = len(counts_NX)
    text, with_words, words, repeated, seconds = counts_NX.sum(axis=0)
    figures = {
        "with_text": 100 * text / clips if clips else math.nan,
        "with_words": 100 * with_words / clips if clips else math.nan,
        "words_per_hour": 3600 * words / seconds if seconds else math.nan,
        "repeated_5grams": repeated / clips if clips else math.nan,
    }
    return without_nan({name: float(value) for name, value in figures.items()}) | {
        "samples": clips,
        "audio_seconds": float(seconds),
    }
