"""The card of a model: ``README.md`` with metadata for the Hub, a learning curve, and evaluation results."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flax_distil.checkpoints.hub.cards import CARD_NAME
from flax_distil.checkpoints.hub.upload import EVAL_RESULTS_NAME
from flax_distil.core.svg_plot import svg_file
from flax_distil.distillation.publishing.card_subject import CardSubject
from flax_distil.distillation.publishing.card_text import LOSS_PLOT, WER_PLOT, card_text
from flax_distil.distillation.publishing.evaluation_table import EvaluatedSet
from flax_distil.distillation.publishing.run_summary import RunSummary

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

log = logging.getLogger(__name__)

MARK = "<!-- Written by flax-distil, which replaces this file: delete this line to keep your changes. -->"
"""Line of a card by which it is known as ours."""

_TASK, _TASK_NAME = "automatic-speech-recognition", "Automatic Speech Recognition"


def write_model_card(subject: CardSubject, folder: Path, *, existing: str | None = None) -> None:
    """Write the card of a model and what belongs to it; a card of somebody else stays as it is.

    Args:
        subject: What the card tells.
        folder: Folder to write ``README.md``, plots and ``.eval_results`` into.
        existing: The card that is there; None if there is none.
    """
    if existing is not None and MARK not in existing:
        log.info("%s was not written by flax-distil and stays as it is", folder / CARD_NAME)
        return
    plots = _plots(subject.run)
    for name, plot in plots.items():
        (folder / name).write_text(plot, encoding="utf-8")
    for name, results in _result_files(subject.evaluated).items():
        (folder / EVAL_RESULTS_NAME).mkdir(exist_ok=True)
        (folder / EVAL_RESULTS_NAME / name).write_text(results, encoding="utf-8")
    card = make_model_card(subject, plots=list(plots))
    (folder / CARD_NAME).write_text(f"{card}\n", encoding="utf-8")


def make_model_card(subject: CardSubject, *, plots: Sequence[str] = ()) -> "ModelCard":
    """Return the card of a model.

    Args:
        subject: What the card tells.
        plots: Names of the files of plots that stand beside the card.
    """
    from huggingface_hub import ModelCard, ModelCardData

    base = subject.starting_model.get("id")
    relation = "finetune" if subject.run is not None else "quantized"
    training = [] if subject.run is None else subject.run.data_sets("training")
    results = [_eval_result(evaluated) for evaluated in subject.evaluated if evaluated.model is None]
    data = ModelCardData(
        language=subject.languages or None,
        license=subject.license,
        library_name="transformers",
        pipeline_tag=_TASK,
        tags=["whisper", "flax-distil", *(["distillation"] if subject.teacher else [])],
        base_model=base,
        base_model_relation=relation if base else None,
        datasets=list(dict.fromkeys(entry["id"] for entry in training if entry["id"])) or None,
        metrics=["wer"] if results else None,
        model_name=subject.title if results else None,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data}\n---\n\n{MARK}\n\n{card_text(subject, plots=plots)}")


def _eval_result(evaluated: EvaluatedSet) -> "EvalResult":
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=_TASK,
        task_name=_TASK_NAME,
        dataset_type=evaluated.data_set_id or evaluated.data_set,
        dataset_name=evaluated.data_set,
        dataset_config=evaluated.config,
        dataset_split=evaluated.split,
        metric_type="wer",
        metric_name="WER",
        metric_value=round(evaluated.wer, 2),
    )


def _result_files(evaluated: Sequence[EvaluatedSet]) -> dict[str, str]:
    """Return the files of ``.eval_results`` by name: one per data set of the Hub.

    Source: ``EvalResultEntry`` of huggingface_hub; https://huggingface.co/docs/hub/eval-results.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    files: dict[str, list[EvalResultEntry]] = {}
    for found in evaluated:
        if found.model is None and found.data_set_id is not None:
            entry = EvalResultEntry(
                dataset_id=found.data_set_id,
                task_id=found.config or "default",
                value=round(found.wer, 2),
                notes=f"WER in percent after normalization, {found.samples} recordings"
                f"{f' of {found.split}' if found.split else ''}",
            )
            files.setdefault(re.sub(r"\W+", "-", found.data_set_id), []).append(entry)
    texts = {name: yaml_dump(eval_result_entries_to_yaml(entries)) for name, entries in files.items()}
    return {f"{name}.yaml": text for name, text in texts.items()}


def _plots(run: RunSummary | None) -> dict[str, str]:
    if run is None:
        return {}
    terms = {"loss": "loss", "CE": "ce_loss"} | ({"KL": "kl_loss"} if run.has_divergence else {})
    losses = {name: run.points(key) for name, key in terms.items()}
    plots = {
        LOSS_PLOT: svg_file("Loss over steps", losses),
        WER_PLOT: svg_file(
            "Word error rate over steps",
            {name: run.points(f"{prefix}wer") for name, prefix in run.score_prefixes().items()},
            unit=" %",
        ),
    }
    return {name: plot for name, plot in plots.items() if plot}
