"""Evaluation: word error rate and speed of checkpoints on data sets, without and with noise."""

import contextlib
import functools
import glob
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flax_distil.checkpoints.identity import model_identity
from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.core.nested import flatten
from flax_distil.data.sources.load_datasets import load_tables
from flax_distil.evaluation.config import CLEAN, EvalConfig, NoiseCondition
from flax_distil.evaluation.gate import find_failures
from flax_distil.evaluation.latency import LATENCY, measure_latency
from flax_distil.evaluation.leaderboard.manifests import chunks_of, join_chunks
from flax_distil.evaluation.leaderboard.open_sets import open_set
from flax_distil.evaluation.leaderboard.results import (
    Manifests,
    leaderboard_results,
    make_manifests,
    write_leaderboard_files,
)
from flax_distil.evaluation.leaderboard.sets import SETS
from flax_distil.evaluation.leaderboard.transcription import LeaderboardEvaluation
from flax_distil.evaluation.noise import NoiseMaker
from flax_distil.evaluation.non_speech.clip_set import non_speech_options, open_non_speech
from flax_distil.evaluation.output import (
    LEADERBOARD_NAME,
    REPORT_NAME,
    RESULTS_NAME,
    SAMPLES_NAME,
    EvaluationOutput,
)
from flax_distil.evaluation.records import Records
from flax_distil.evaluation.report.page import write_report
from flax_distil.evaluation.report.tables import format_tables, write_samples
from flax_distil.evaluation.results import Evaluation, make_results
from flax_distil.evaluation.scores import ScoredRecords
from flax_distil.evaluation.shared_encoders import EvaluationsTogether, group_by_encoder
from flax_distil.evaluation.streams import (
    EvaluationSet,
    EvaluationStream,
    is_finished,
    most_rows,
    open_streams,
)
from flax_distil.evaluation.transcription import ModelEvaluation, gather_records
from flax_distil.parallel.make_partitioner import join_local_devices
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.processes import raise_on_all_hosts
from flax_distil.parallel.same_settings import check_same_settings
from flax_distil.parallel.shared_folder import check_shared_folder
from flax_distil.pipeline.transcription_model import TranscriptionModel, configured_model
from flax_distil.storage.output_dir import atomic_folder
from flax_distil.text.leaderboard_normalizer import LeaderboardNormalizer
from flax_distil.text.normalizers import Normalizer, get_model_normalizer

__all__ = ["EvalConfig", "run"]

log = logging.getLogger(__name__)

_WITHOUT_EFFECT = {
    "baseline_model", "fail_if", "normalizer", "output_dir", "overwrite_output_dir", "dataloader_num_workers",
    "dataset_cache_dir", "cache_dir", "source_retry_seconds",
    "non_speech", "non_speech_samples",
    "scorer", "coordinator_address", "num_processes", "process_id", "initialization_timeout_seconds",
    "heartbeat_timeout_seconds",
}  # fmt: skip
"""Settings that change no prediction: another run may have others and go on."""


def run(config: EvalConfig) -> dict[str, Any]:
    """Evaluate, print tables, write the reports and return what ``results.json`` holds.

    What is in ``output_dir`` already is not done again; see docs/evaluation.md for every figure.

    Raises:
        InputError: For whatever does not fit, before weights are read.
    """
    partitioner = join_local_devices(config.devices)
    check_same_settings(flatten(config))
    leads = jax.process_index() == 0
    opened = raise_on_all_hosts(
        lambda: EvaluationOutput(config.output.output_dir, overwrite=config.output.overwrite_output_dir)
    )
    with opened as output, contextlib.ExitStack() as stack:
        raise_on_all_hosts(lambda: output.check() if leads else None)
        models = raise_on_all_hosts(lambda: _open_models(config, partitioner))
        data_sets = raise_on_all_hosts(lambda: _open_data_sets(config))
        non_speech = raise_on_all_hosts(lambda: open_non_speech(config))
        noise = raise_on_all_hosts(lambda: _open_noise(config, {**data_sets, **non_speech}))
        normalize = _normalizer_for(config, models)
        parameters = {label: model.parameters for label, model in models.items()}
        raise_on_all_hosts(lambda: stack.enter_context(output.lock()) if leads else None)
        raise_on_all_hosts(lambda: output.begin(_settings(config, data_sets)) if leads else None)
        if output.is_kept:
            check_shared_folder(output.folder)
        _transcribe(config, partitioner, output, models, {**data_sets, **non_speech}, noise)
        records = {
            (label, name, condition.name): gather_records(output, (label, name, condition.name))
            for label in parameters
            for name in data_sets
            for condition in config.conditions
        }
        evaluation = Evaluation(
            config=config,
            normalize=normalize,
            parameters=parameters,
            data_sets=list(data_sets),
            units={
                key: _scored(found, config, data_sets[key[1]], normalize) for key, found in records.items()
            },
            latency={
                label: gather_records(output, (label, next(iter(data_sets)), LATENCY)) for label in parameters
            },
            non_speech={
                key: ScoredRecords(gather_records(output, key).first(len(data)), normalize)
                for label in parameters
                for name, data in non_speech.items()
                for key in [(label, name, CLEAN.name)]
            },
        )
        results = make_results(evaluation)
        manifests = make_manifests(config, records, data_sets) if config.rules.is_leaderboard else {}
        if manifests:
            scorer = config.rules.scorer if leads else None
            results[LEADERBOARD_NAME] = leaderboard_results(evaluation, manifests, scorer=scorer)
        if config.fail_if:
            results["failures"] = find_failures(config.fail_conditions, results)
        if leads:
            _report(evaluation, results, output, manifests)
            for sentence in results.get("failures", ()):
                log.error("%s", sentence)
    return results


def _transcribe(
    config: EvalConfig,
    partitioner: Partitioner,
    output: EvaluationOutput,
    models: dict[str, TranscriptionModel],
    data_sets: Mapping[str, EvaluationSet],
    noise: Mapping[str, NoiseMaker],
) -> None:
    """Do all there is to do: the weights of some models are gone when those of others are read.

    For the latency, at the end, all models are read again: they take turns.
    """
    most = most_rows(data_sets.values())
    kind = LeaderboardEvaluation if config.rules.is_leaderboard else ModelEvaluation
    for group in _groups(config, output, list(models), data_sets):
        works = [
            kind(
                config,
                partitioner,
                output,
                label=label,
                model=models.pop(label),
                most=most,
                options=non_speech_options(config),
            )
            for label in group
        ]
        _transcribe_group(config, output, dict(zip(group, works, strict=True)), data_sets, noise)
        del works  # before the weights of other models are read
    opened = _open_models(config, partitioner) if config.latency_samples else {}
    first = next(iter(data_sets.items()))
    raise_on_all_hosts(lambda: measure_latency(config, partitioner, output, opened, *first))


def _transcribe_group(
    config: EvalConfig,
    output: EvaluationOutput,
    works: Mapping[str, ModelEvaluation],
    data_sets: Mapping[str, EvaluationSet],
    noise: Mapping[str, NoiseMaker],
) -> None:
    """Do what there is to do with some models, which are on the devices at the same time."""
    together = EvaluationsTogether(list(works.values()))
    for name, data in data_sets.items():
        together.transcribe(name, data, noise[name], _conditions(config, name))
        for label in works:
            records = gather_records(output, (label, name, CLEAN.name))
            if not records.predictions:
                reasons = records.skipped.report()
                raise InputError(f"no recording of data set {name!r} can be transcribed: {reasons}")


def _conditions(config: EvalConfig, name: str) -> Sequence[NoiseCondition]:
    """Return the conditions of a data set: nothing is added to clips without speech."""
    return [CLEAN] if name in non_speech_options(config) else config.conditions


def _groups(
    config: EvalConfig,
    output: EvaluationOutput,
    labels: Sequence[str],
    data_sets: Mapping[str, EvaluationSet],
) -> list[list[str]]:
    """Return which models work together; encoders are only compared if there is work left."""
    keys = {
        label: [
            (label, name, condition.name) for name in data_sets for condition in _conditions(config, name)
        ]
        for label in labels
    }
    waiting = [
        label
        for label in labels
        if not all(is_finished(gather_records(output, key), data_sets[key[1]]) for key in keys[label])
    ]
    groups = raise_on_all_hosts(lambda: group_by_encoder(config, waiting))
    return [*groups, *([label] for label in labels if label not in waiting)]


def _open_models(config: EvalConfig, partitioner: Partitioner) -> dict[str, TranscriptionModel]:
    """Read the small files of every checkpoint: whatever does not fit is known at once."""
    for name in config.models.values():
        if glob.has_magic(name) and not os.path.exists(user_path(name)):
            raise InputError(f"model_name_or_path {name!r} fits no folder here: check the pattern")
    models = {label: configured_model(config, partitioner, name) for label, name in config.models.items()}
    for data_set in config.leaderboard_sets if config.rules.is_leaderboard else ():
        for label, model in models.items():
            if data_set.language != "en" and not model.is_multilingual:
                raise InputError(
                    f"set {data_set.name!r} is in language {data_set.language!r}, and model {label!r} knows "
                    "English alone: leave either out"
                )
    return models


def _open_data_sets(config: EvalConfig) -> dict[str, EvaluationSet]:
    """Open the data sets, by their names."""
    if config.rules.is_leaderboard:
        folder = config.rules.leaderboard_data_dir
        return {
            data_set.name: open_set(data_set, config.data.spec, data_dir=folder)
            for data_set in config.leaderboard_sets
        }
    spec = config.data.spec
    found: Sequence[EvaluationSet] = open_streams(spec) if spec.streaming else load_tables(spec)
    return {data.name: data for data in found}


def _open_noise(config: EvalConfig, data_sets: Mapping[str, EvaluationSet]) -> dict[str, NoiseMaker]:
    noise = config.recorded_noise.spec(config.data.reading)
    recorded = None if noise is None else load_tables(noise)[0]
    return {name: NoiseMaker(data, recorded, seed=config.decoding.seed) for name, data in data_sets.items()}


def _normalizer_for(config: EvalConfig, models: Mapping[str, TranscriptionModel]) -> Normalizer:
    """Return one way to compare texts for all models: the rules of the language, if it is known."""
    is_multilingual = all(model.is_multilingual for model in models.values())
    chosen = [model.chosen for model in models.values()]
    task = "translate" if any(options.task == "translate" for options in chosen) else "transcribe"
    languages = {options.language for options in chosen}
    if languages == {None} and is_multilingual and task == "transcribe":
        log.warning("language is not given: it is detected, and scored by the rules for any language")
    language = languages.pop() if len(languages) == 1 else None
    return get_model_normalizer(
        language, task, is_multilingual=is_multilingual, name=config.data.reading.normalizer
    )


def _scored(
    records: Records, config: EvalConfig, data: EvaluationSet, normalize: Normalizer
) -> ScoredRecords:
    """Return records with the ways to compare their texts; those of chunks become those of recordings."""
    if not config.rules.is_leaderboard:
        return ScoredRecords(records, normalize, _leaderboard_normalizer(normalize.language))
    chunks = chunks_of(data)
    whole = records if chunks is None else join_chunks(records, chunks)
    return ScoredRecords(whole, normalize, LeaderboardNormalizer(SETS[data.name].language))


@functools.cache
def _leaderboard_normalizer(language: str | None) -> LeaderboardNormalizer | None:
    """Return how the Open ASR Leaderboard compares texts of a language; None where that cannot be told."""
    if language is None:
        return None
    normalize = LeaderboardNormalizer(language)
    try:
        normalize("1")
    except InputError as error:
        log.info("figures as those of the leaderboard are left out: %s", error)
        return None
    return normalize


def _settings(config: EvalConfig, data_sets: Mapping[str, EvaluationSet]) -> dict[str, Any]:
    """Return what decides predictions, as JSON takes it."""
    settings = {name: value for name, value in flatten(config).items() if name not in _WITHOUT_EFFECT}
    weights = {label: config.model_source(name) for label, name in config.models.items()}
    if config.assistant.assistant_model_name_or_path is not None:
        weights["the assistant"] = config.model.assistant_source(
            config.assistant.assistant_model_name_or_path
        )
    settings |= {
        f"weights of {label}": model_identity(source) or str(source) for label, source in weights.items()
    }
    return settings | {f"rows of {name}": _rows_identity(data) for name, data in data_sets.items()}


def _rows_identity(data: EvaluationSet) -> str:
    if isinstance(data, EvaluationStream):
        return data.identity
    rows = repr((data.ids(), data.references()))
    return f"{len(data)} rows, {hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()}"


def _report(
    evaluation: Evaluation, results: dict[str, Any], output: EvaluationOutput, manifests: Manifests
) -> None:
    show(format_tables(results, evaluation))
    for (label, name, condition), unit in evaluation.units.items():
        if condition == CLEAN.name and label == evaluation.models[0] and unit.records.skipped:
            log.warning("%s: %s", name, unit.records.skipped.report())
    if output.is_kept:
        with atomic_folder(output.folder, last=[RESULTS_NAME]) as scratch:
            (scratch / RESULTS_NAME).write_text(json.dumps(results, indent=2) + "\n")
            write_samples(evaluation, scratch / SAMPLES_NAME)
            write_report(evaluation, results, scratch / REPORT_NAME)
            if manifests:
                write_leaderboard_files(evaluation, results[LEADERBOARD_NAME], manifests, scratch)
        log.info("written to %s", output.folder)
