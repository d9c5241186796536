"""From transcribed recordings to figures: rates, how sure they are, which differences are more than luck."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.evaluation.records import LatencySample, Prediction, Records
from flax_distil.metrics.bootstrap import (
    bootstrap_p_value,
    matched_pairs_p_value,
    percentile_interval,
    resample_sums,
)
from flax_distil.metrics.compound_errors import compound_errors
from flax_distil.metrics.hallucination import repeated_ngrams
from flax_distil.metrics.throughput import Throughput
from flax_distil.metrics.word_errors import ErrorCounts, word_errors
from flax_distil.text.leaderboard_normalizer import LeaderboardNormalizer
from flax_distil.text.normalizers import orthographic
from flax_distil.transcription.assisted_generator import SpeculativeStatistics

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ScoredRecords:
    """One model on one data set under one condition.

    Attributes:
        records: What was transcribed.
        normalize: How texts are compared.
        leaderboard: How the Open ASR Leaderboard compares them; None if that cannot be told.
    """

    records: Records
    normalize: Callable[[str], str]
    leaderboard: LeaderboardNormalizer | None = None

    @functools.cached_property
    def predictions(self) -> list[Prediction]:
        """In order of rows."""
        return self.records.predictions

    @functools.cached_property
    def errors(self) -> list[ErrorCounts]:
        """Of each prediction."""
        return [word_errors([line.reference], [line.text], self.normalize) for line in self.predictions]

    @functools.cached_property
    def orthographic(self) -> ErrorCounts:
        """Of all, casing and punctuation kept."""
        language = getattr(self.normalize, "language", None)
        counts = (
            word_errors(
                [line.reference],
                [line.text],
                functools.partial(orthographic, language=language or line.language),
            )
            for line in self.predictions
        )
        return sum(counts, ErrorCounts())

    @functools.cached_property
    def leaderboard_errors(self) -> ErrorCounts:
        """Of all, as the Open ASR Leaderboard counts them; none if that cannot be told."""
        rules = self.leaderboard
        if rules is None:
            return ErrorCounts()
        counts = (
            compound_errors(line.reference, line.text, rules, join_first=rules.language != "en")
            for line in self.predictions
            if rules.is_scored(line.reference)
        )
        return sum(counts, ErrorCounts())

    @functools.cached_property
    def repeated(self) -> list[int]:
        """Repeated runs of five words in each prediction."""
        return [repeated_ngrams(self.normalize(line.text)) for line in self.predictions]

    @property
    def counts(self) -> dict[int, tuple[int, int]]:
        """Errors and reference words by row, where there is a reference."""
        return {
            line.index: (counts.errors, counts.reference_words)
            for line, counts in zip(self.predictions, self.errors, strict=True)
            if counts.samples
        }


def compute_scores(units: Sequence[ScoredRecords]) -> Scores:
    """Return the scores over the recordings of all units together; see docs/evaluation.md."""
    errors = sum((counts for unit in units for counts in unit.errors), ErrorCounts())
    written = sum((unit.orthographic for unit in units), ErrorCounts())
    leaderboard = sum((unit.leaderboard_errors for unit in units), ErrorCounts())
    throughput = sum((unit.records.throughput() for unit in units), Throughput())
    samples = sum(len(unit.predictions) for unit in units)
    figures = {
        "wer": errors.wer,
        "wer_open_asr_leaderboard": leaderboard.wer,
        "wer_ortho": written.wer,
        "cer": errors.cer,
        "cer_ortho": written.cer,
        "insertion_rate": errors.insertion_rate,
        "deletion_rate": errors.deletion_rate,
        "substitution_rate": errors.substitution_rate,
        "repeated_5grams": sum(sum(unit.repeated) for unit in units) / samples if samples else math.nan,
        "rtfx": throughput.rtfx,
        "tokens_per_second": throughput.tokens_per_second,
        "audio_seconds": throughput.audio_seconds,
        "compute_seconds": throughput.compute_seconds,
        "compile_seconds": throughput.compile_seconds,
    }
    return without_nan(figures) | {
        "reference_words": errors.reference_words,
        "samples": samples,
        "empty_references": errors.skipped,
        "skipped": sum(len(unit.records.skipped) for unit in units),
        "sessions": max((session.number for unit in units for session in unit.records.sessions), default=0),
    }


def latency_scores(samples: Sequence[LatencySample]) -> Scores | None:
    """Return the seconds that recordings took alone; None where none was measured."""
    if not samples:
        return None
    seconds = [sample.seconds for sample in samples]
    median, high = np.quantile(seconds, [0.5, 0.9]).tolist()
    behind_encoder = [sample.seconds - sample.encoder_seconds for sample in samples]
    return {
        "samples": len(samples),
        "median_seconds": median,
        "p90_seconds": high,
        "median_decoder_seconds": float(np.median(behind_encoder)),
        "audio_seconds": sum(sample.duration for sample in samples),
        "tokens_per_second": sum(sample.tokens for sample in samples) / sum(seconds),
        "devices": samples[0].devices,
    }


def speculation_scores(counts: Mapping[str, int]) -> Scores | None:
    """Return how well an assistant drafted, from the sums of ``SpeculativeStatistics``; None without one."""
    if not counts:
        return None
    statistics = SpeculativeStatistics(**counts)
    return vars(statistics) | {
        "acceptance_rate": statistics.acceptance_rate,
        "passes_per_token": statistics.passes_per_token,
    }


class Resampled:
    """All models on the same recordings of some data sets, drawn again and again with replacement.

    A draw takes the same recordings for every model, and as many as there are of each data set.

    Args:
        units: By data set, by model, under one condition.
        seed: Of the draws.
    """

    def __init__(self, units: Mapping[str, Mapping[str, ScoredRecords]], *, seed: int):
        self._counts_NX: dict[str, Float[np.ndarray, "N X"]] = {}
        self._sums_RX: dict[str, Float[np.ndarray, "R X"]] = {}
        for name, by_model in units.items():
            counts = [unit.counts for unit in by_model.values()]
            rows = sorted(set.intersection(*(set(found) for found in counts)))
            columns = [[found[row][0] for row in rows] for found in counts]
            words = [counts[0][row][1] for row in rows]
            self._models = list(by_model)
            self._counts_NX[name] = np.array([*columns, words], float).T
            self._sums_RX[name] = resample_sums(self._counts_NX[name], seed=seed)

    def interval(self, model: str, data_set: str | None = None) -> list[float] | None:
        """Return the 95 % interval of the word error rate in percent; of all words without a data set."""
        return _interval_ends(self._rates_R(model, data_set))

    def macro_interval(self, model: str) -> list[float] | None:
        """Return the interval of the mean of the data sets' rates, those without references left out."""
        known = [name for name, counts_NX in self._counts_NX.items() if len(counts_NX)]
        return (
            _interval_ends(np.mean([self._rates_R(model, name) for name in known], axis=0)) if known else None
        )

    def comparison(self, model: str, baseline: str, data_set: str | None = None) -> Scores:
        """Return by how much a model's rate is above the baseline's, and how sure that is."""
        names = list(self._counts_NX) if data_set is None else [data_set]
        counts_NX = np.concatenate([self._counts_NX[name] for name in names])
        differences_N = counts_NX[:, self._column(model)] - counts_NX[:, self._column(baseline)]
        differences_R = self._rates_R(model, data_set) - self._rates_R(baseline, data_set)
        words = counts_NX[:, -1].sum()
        figures = {
            "difference": 100 * differences_N.sum() / words if words else math.nan,
            "p_bootstrap": bootstrap_p_value(differences_R) if words else math.nan,
            "p_matched_pairs": matched_pairs_p_value(differences_N),
        }
        return without_nan(figures) | {
            "difference_interval": _interval_ends(differences_R),
            "recordings": len(differences_N),
        }

    def _rates_R(self, model: str, data_set: str | None) -> Float[np.ndarray, " R"]:
        names = list(self._sums_RX) if data_set is None else [data_set]
        sums_RX = np.sum([self._sums_RX[name] for name in names], axis=0)
        words_R = sums_RX[:, -1]
        return 100 * sums_RX[:, self._column(model)] / np.where(words_R > 0, words_R, math.nan)

    def _column(self, model: str) -> int:
        return self._models.index(model)


def _interval_ends(values_R: Float[np.ndarray, " R"]) -> list[float] | None:
    interval = percentile_interval(values_R)
    return None if math.isnan(interval.low) else list(interval)


def without_nan(figures: Scores) -> Scores:
    """Return figures with None for what is not a finite number, as JSON wants it."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
