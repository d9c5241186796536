"""What an export is on the Hub: where each format lies in the repository, and its card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flax_distil.checkpoints.hub.cards import CARD_NAME, hub_id
from flax_distil.checkpoints.tokenizer import has_tokenizer, read_tokenizer
from flax_distil.core.errors import InputError
from flax_distil.distillation.publishing.card_subject import CardSubject
from flax_distil.distillation.publishing.evaluation_table import (
    EvaluatedSet,
    read_eval_results,
    training_evaluations,
)
from flax_distil.distillation.publishing.model_card import write_model_card
from flax_distil.distillation.publishing.run_origins import describe_model
from flax_distil.distillation.publishing.run_summary import RunSummary, read_run_summary
from flax_distil.distillation.publishing.usage import RepositoryFormat
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.source import ExportSource
from flax_distil.storage.output_dir import local_results
from flax_distil.storage.paths import AnyPath, output_path, read_text

_LOADED_BY_NAME = {"ggml": "ggml-model*.bin", "openai": "*.pt"}
"""Patterns of the files of formats that are loaded by the name of a file rather than of a folder."""


def repository_layout(names: Sequence[str]) -> dict[str, str]:
    """Return the folder of the repository for each subfolder of an export of several formats.

    transformers and Transformers.js look for their files in the repository itself; the others have a folder
    of their own name.

    Args:
        names: Names of the formats; one alone has no subfolder of its own.
    """
    if len(names) == 1:
        return {"onnx": "onnx"} if "onnx" in names else {}  # its graphs are in one even so
    layout = {name: name for name in names}
    if "hf" in layout:
        layout["hf"] = ""
    if "onnx" in layout:
        del layout["onnx"]  # the small files beside its graphs are those of hf
        layout |= {"onnx/onnx": "onnx"} if "hf" in layout else {"onnx": ""}
    return layout


class ExportCard:
    """Writes the card of an export that is uploaded, or for which something was given for its card.

    Args:
        config: Settings of the export.
        repository: Repository on the Hub; None if nothing is uploaded.

    Raises:
        InputError: If the results of an evaluation cannot be read, or are those of other models.
    """

    def __init__(self, config: ExportConfig, repository: str | None) -> None:
        self._config, self._repository = config, repository
        self._run = _run_of(config)
        self._evaluated = _evaluated(config, repository, self._run)

    def write(self, source: ExportSource, choices: Sequence[Choice], folder: AnyPath) -> None:
        """Write ``README.md`` and what belongs to it into the folder of the export."""
        card, given = folder / CARD_NAME, self._config.card
        if self._repository is None and not (given.license or given.eval_results):
            return
        existing = read_text(card) if card.is_file() else None
        with local_results(folder) as local:
            subject = CardSubject(
                repository=self._repository or folder.name,
                model=describe_model(source.config),
                is_multilingual=_is_multilingual(source),
                formats=_formats(choices, folder),
                base=self._config.model.name,
                run=self._run,
                evaluated=self._evaluated,
                license=given.license,
            )
            write_model_card(subject, local, existing=existing)


def _run_of(config: ExportConfig) -> RunSummary | None:
    """Return the run whose student is exported; None if the checkpoint is not in the folder of a run."""
    name, which = config.model.name, config.checkpoint
    if hub_id(name) is not None:
        return None
    try:
        folder = output_path(name)
    except InputError:  # an address that is none of a bucket
        return None
    run = read_run_summary(folder)
    if run is None:
        return None
    if which is not None and which.isdigit():
        return read_run_summary(folder, step=int(which))
    is_best = which == "best" or (which is None and bool(run.settings.get("load_best_model_at_end")))
    return read_run_summary(folder, step=run.best_step) if is_best else run


def _evaluated(
    config: ExportConfig, repository: str | None, run: RunSummary | None
) -> Sequence[EvaluatedSet]:
    given = config.card.eval_results
    if given is None:
        return [] if run is None else training_evaluations(run)
    names = (config.model.name, config.output.output_dir, repository)
    return read_eval_results(given, own=[name for name in names if name])


def _is_multilingual(source: ExportSource) -> bool:
    if has_tokenizer(source.files):
        return read_tokenizer(source.files)[0].special.is_multilingual
    return source.config.vocab_size != _ENGLISH_VOCABULARY


_ENGLISH_VOCABULARY = 51864
"""Number of tokens of the models that know English alone."""


def _formats(choices: Sequence[Choice], folder: AnyPath) -> Mapping[str, RepositoryFormat]:
    """Return where the formats lie in the repository."""
    layout = repository_layout([choice.name for choice in choices])
    found = {}
    for choice in choices:
        own = folder if len(choices) == 1 else folder / choice.name
        pattern = _LOADED_BY_NAME.get(choice.name)
        files = [Path(str(path)).name for path in own.glob(pattern)] if pattern else []
        found[choice.name] = RepositoryFormat(
            folder="" if choice.name == "onnx" else layout.get(choice.name, ""),  # found from the root
            file=min(files, default=""),
            quantization=choice.quantization,
        )
    return found
