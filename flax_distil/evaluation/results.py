"""All figures of an evaluation in one document: what ``results.json`` holds and reports show."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flax_distil.core.nested import flatten
from flax_distil.evaluation.config import CLEAN, EvalConfig
from flax_distil.evaluation.non_speech.figures import non_speech_results
from flax_distil.evaluation.records import Records
from flax_distil.evaluation.scores import (
    Resampled,
    ScoredRecords,
    Scores,
    compute_scores,
    latency_scores,
    speculation_scores,
)
from flax_distil.metrics.bootstrap import CONFIDENCE, RESAMPLES
from flax_distil.text.normalizers import Normalizer

_RELATIVE_LATENCIES = {
    "relative_latency": "median_seconds",
    "relative_decoder_latency": "median_decoder_seconds",
}
"""Figures that compare a model with the baseline, and the seconds that they compare."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was transcribed.

    Attributes:
        config: What was asked for.
        normalize: How texts were compared.
        parameters: Numbers in the weights of each model.
        data_sets: Their names in reports.
        units: Scored records by model, data set and name of the condition.
        latency: Recordings transcribed alone, by model.
        non_speech: Scored records of clips without speech, by model, name of the set and name of the
            condition; empty if they were not asked for.
    """

    config: EvalConfig
    normalize: Normalizer
    parameters: Mapping[str, int]
    data_sets: list[str]
    units: Mapping[tuple[str, str, str], ScoredRecords]
    latency: Mapping[str, Records]
    non_speech: Mapping[tuple[str, str, str], ScoredRecords] = dataclasses.field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """What reports call them."""
        return list(self.parameters)

    @property
    def conditions(self) -> list[str]:
        """Their names."""
        return [condition.name for condition in self.config.conditions]


def make_results(evaluation: Evaluation) -> dict[str, Any]:
    """Return all figures; see docs/evaluation.md for each of them."""
    config, baseline = evaluation.config, evaluation.config.baseline
    models: dict[str, dict[str, Any]] = {
        model: {
            "model_name_or_path": config.models[model],
            "parameters": evaluation.parameters[model],
            "speed": _speed(evaluation, model),
            "total": {},
            "data_sets": {name: {} for name in evaluation.data_sets},
        }
        for model in evaluation.models
    }
    comparisons: list[Scores] = []
    for condition in evaluation.conditions:
        by_set = {
            name: {model: evaluation.units[model, name, condition] for model in models}
            for name in evaluation.data_sets
        }
        resampled = Resampled(by_set, seed=config.decoding.seed)
        for model, entry in models.items():
            for name, by_model in by_set.items():
                entry["data_sets"][name][condition] = compute_scores([by_model[model]]) | {
                    "wer_interval": resampled.interval(model, name),
                    "skipped_samples": {
                        sample.sample_id: sample.reason
                        for sample in by_model[model].records.skipped.samples()
                    },
                }
            rates = [figures[condition]["wer"] for figures in entry["data_sets"].values()]
            known = [rate for rate in rates if rate is not None]
            entry["total"][condition] = compute_scores([by_model[model] for by_model in by_set.values()]) | {
                "wer_interval": resampled.interval(model),
                "macro_wer": sum(known) / len(known) if known else None,
                "macro_wer_interval": resampled.macro_interval(model),
            }
        for model in [model for model in models if model != baseline]:
            for data_set in (None, *(by_set if len(by_set) > 1 else ())):
                place = {"model": model, "baseline": baseline, "data_set": data_set, "condition": condition}
                comparisons.append(place | resampled.comparison(model, baseline, data_set))
    _add_relative_speeds(models, baseline)
    for model, entry in models.items():
        units = {name: unit for (label, name, _), unit in evaluation.non_speech.items() if label == model}
        if units:
            entry["non_speech"] = non_speech_results(units, seed=config.decoding.seed)
    return {
        "config": flatten(config),
        "normaliser": evaluation.normalize.language or "any language",
        "normalizer": evaluation.normalize.name,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "baseline": baseline,
        "models": models,
        "comparisons": comparisons,
    }


def _speed(evaluation: Evaluation, model: str) -> Scores:
    """Return how fast a model was on clean speech and alone, and how well its assistant drafted."""
    units = [evaluation.units[model, name, CLEAN.name] for name in evaluation.data_sets]
    figures = compute_scores(units)
    sessions = [session for unit in units for session in unit.records.sessions]
    names = ("rtfx", "tokens_per_second", "audio_seconds", "compute_seconds", "compile_seconds")
    return {name: figures[name] for name in names} | {
        "batch_size": sorted({session.batch_size for session in sessions}),
        "devices": sorted({session.devices for session in sessions}),
        "processes": max((session.process + 1 for session in sessions), default=0),
        "speculation": speculation_scores(sum((unit.records.statistics() for unit in units), Counter())),
        "latency": latency_scores(evaluation.latency[model].latency),
    }


def _add_relative_speeds(models: Mapping[str, dict[str, Any]], baseline: str) -> None:
    """Add how many times faster than the baseline each model is."""
    reference = models[baseline]["speed"]
    for entry in models.values():
        speed = entry["speed"]
        known = speed["rtfx"] and reference["rtfx"]
        speed["relative_rtfx"] = speed["rtfx"] / reference["rtfx"] if known else None
        if speed["latency"] is not None and reference["latency"] is not None:
            for relative, seconds in _RELATIVE_LATENCIES.items():
                speed["latency"][relative] = reference["latency"][seconds] / speed["latency"][seconds]
