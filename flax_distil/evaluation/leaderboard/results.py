"""Results under the Open ASR Leaderboard's protocol: figures, manifests, and files for the Hub."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.evaluation.config import CLEAN, EvalConfig
from flax_distil.evaluation.leaderboard.eval_results import EVAL_RESULTS_PATH, eval_results
from flax_distil.evaluation.leaderboard.figures import leaderboard_figures
from flax_distil.evaluation.leaderboard.manifests import manifest_lines, model_id, write_manifests
from flax_distil.evaluation.leaderboard.scorer import TOLERANCE, run_scorer
from flax_distil.evaluation.leaderboard.sets import SETS
from flax_distil.evaluation.output import LEADERBOARD_NAME
from flax_distil.evaluation.records import Records
from flax_distil.evaluation.results import Evaluation
from flax_distil.evaluation.streams import EvaluationSet

log = logging.getLogger(__name__)

Manifests = Mapping[str, Mapping[str, list[str]]]
"""Lines of manifests by model and by name of file."""


def make_manifests(
    config: EvalConfig,
    records: Mapping[tuple[str, str, str], Records],
    data_sets: Mapping[str, EvaluationSet],
) -> Manifests:
    """Return the manifests of all models.

    Args:
        config: What was asked for.
        records: By model, set and condition.
        data_sets: The sets by name.
    """
    manifests: dict[str, dict[str, list[str]]] = {}
    for (label, name, _), found in records.items():
        file = SETS[name].manifest_name(model_id(config.models[label], label))
        manifests.setdefault(label, {})[file] = manifest_lines(found, data_sets[name])
    return manifests


def leaderboard_results(
    evaluation: Evaluation, manifests: Manifests, *, scorer: str | None
) -> dict[str, Any]:
    """Return the figures of all models, with those of the leaderboard's own scorer if there is one.

    Args:
        evaluation: What was transcribed.
        manifests: What the scorer reads.
        scorer: Its folder.

    Raises:
        InputError: If that scorer fails.
    """
    results = {}
    for label in evaluation.models:
        units = {name: evaluation.units[label, name, CLEAN.name] for name in evaluation.data_sets}
        cut = evaluation.config.data.max_samples is not None
        in_part = [name for name, unit in units.items() if cut or unit.records.skipped]
        figures = results[label] = leaderboard_figures(units, in_part=in_part)
        if scorer is not None:
            _add_scorer(figures, evaluation, label, manifests[label], scorer)
    return results


def _add_scorer(
    figures: dict[str, Any],
    evaluation: Evaluation,
    label: str,
    manifests: Mapping[str, list[str]],
    folder: str,
) -> None:
    identifier = model_id(evaluation.config.models[label], label)
    files = {name: SETS[name].manifest_name(identifier) for name in evaluation.data_sets}
    for language in dict.fromkeys(SETS[name].language for name in files):
        own = {name: file for name, file in files.items() if SETS[name].language == language}
        rates = run_scorer(folder, {file: manifests[file] for file in own.values()}, language=language)
        for name, file in own.items():
            found = figures["sets"][name]
            found["scorer_wer"] = rates[file]
            if abs(round(found["wer"], 2) - rates[file]) > TOLERANCE:
                log.warning(
                    "set %s: the scorer in %s counts a word error rate of %.2f %%, and this program %.2f %%: "
                    "take the scorer's, whose rules may be newer",
                    name, folder, rates[file], found["wer"],
                )  # fmt: skip


def write_leaderboard_files(
    evaluation: Evaluation, results: Mapping[str, Any], manifests: Manifests, folder: Path
) -> None:
    """Write a folder for each model: its manifests, and the file for its repository on the Hub."""
    for label, files in manifests.items():
        name = evaluation.config.models[label]
        identifier = model_id(name, label)
        target = folder / LEADERBOARD_NAME / identifier
        write_manifests(files, target)
        is_local = identifier.startswith("local-")
        text = eval_results(results[label], source_url=None if is_local else f"https://huggingface.co/{name}")
        if text is not None:
            path = target / EVAL_RESULTS_PATH
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
