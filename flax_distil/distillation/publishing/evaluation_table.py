"""Word error rates for a card: of the evaluations of a run, and of ``flax-distil eval``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.hub.cards import hub_id
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.sources.dataset_spec import split_names, split_values
from flax_distil.distillation.publishing.run_summary import RunSummary

_CONDITION = "clean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """How a model did on a data set.

    Attributes:
        model: Name of the model; None for the one of the card.
        data_set: Short name of the data set.
        data_set_id: Its id on the Hub; None if it is not there.
        config: Its configuration; None for the default one.
        split: Its split; None if that is not known.
        wer: Word error rate in percent, after normalization.
        interval: Its 95 % interval; None if it was not determined.
        samples: Number of recordings.
        rtfx: Seconds of audio transcribed per second; None if it was not measured.
    """

    model: str | None
    data_set: str
    data_set_id: str | None
    config: str | None = None
    split: str | None = None
    wer: float
    interval: tuple[float, float] | None = None
    samples: int
    rtfx: float | None = None


def training_evaluations(run: RunSummary) -> list[EvaluatedSet]:
    """Return the scores of the latest evaluation of a run."""
    found, prefixes = [], run.score_prefixes()
    for entry in run.data_sets("evaluation"):
        scores = run.latest(prefixes[entry["name"]])
        if "wer" in scores:
            found.append(
                EvaluatedSet(
                    model=None,
                    data_set=entry["name"],
                    data_set_id=entry["id"],
                    config=entry["config"],
                    split=entry["split"],
                    wer=scores["wer"],
                    samples=int(scores.get("samples", 0)),
                )
            )
    return found


def read_eval_results(path: str, *, own: Sequence[str]) -> list[EvaluatedSet]:
    """Read the ``results.json`` of ``flax-distil eval``.

    Args:
        path: The file.
        own: Names under which the model of the card may have been evaluated: folders or ids.

    Raises:
        InputError: If it is not such a file, or does not tell which of its models is that of the card.
    """
    try:
        results = json.loads(user_path(path).read_text(encoding="utf-8"))
        models: dict[str, dict[str, Any]] = results["models"]
        mine = _own_model(models, own, results["baseline"])
        if mine is None:
            raise InputError(
                f"eval_results {path!r} holds results of {', '.join(models)}, and none of them is the model "
                f"that is exported ({own[0]}): evaluate it, or leave eval_results out"
            )
        return [
            evaluated
            for name, entry in sorted(models.items(), key=lambda item: item[0] != mine)
            for evaluated in _sets_of(None if name == mine else name, entry, results["config"])
        ]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"eval_results {path!r} is not the results.json of `flax-distil eval` "
            f"({type(error).__name__}: {error})"
        ) from error


def _own_model(models: Mapping[str, Mapping[str, Any]], own: Sequence[str], baseline: str) -> str | None:
    """Return which model is that of the card: one of its names, or the only one beside the baseline."""
    known = {_place(name) for name in own}
    for name, entry in models.items():
        if _place(str(entry["model_name_or_path"])) in known:
            return name
    others = [name for name in models if name != baseline] or [*models]
    return others[0] if len(others) == 1 else None


def _place(name: str) -> str:
    path = user_path(name)
    return str(Path(path).resolve()) if path.exists() else name


def _sets_of(model: str | None, entry: Mapping[str, Any], config: Mapping[str, Any]) -> list[EvaluatedSet]:
    spec, sets = str(config["dataset_name"]), entry["data_sets"]
    names = split_names(spec)
    subsets = split_values(config.get("dataset_config_name"), "configurations", spec)
    splits = split_values(config.get("dataset_split_name"), "splits", spec)
    found = []
    for (short, conditions), name, subset, split in zip(sets.items(), names, subsets, splits, strict=True):
        scores = conditions[_CONDITION]
        interval = scores["wer_interval"]
        if scores["wer"] is not None:
            found.append(
                EvaluatedSet(
                    model=model,
                    data_set=short,
                    data_set_id=hub_id(name),
                    config=subset,
                    split=split,
                    wer=float(scores["wer"]),
                    interval=None if not interval else (float(interval[0]), float(interval[1])),
                    samples=int(scores["samples"]),
                    rtfx=None if scores["rtfx"] is None else float(scores["rtfx"]),
                )
            )
    return found
