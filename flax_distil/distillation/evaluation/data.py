"""The evaluation sets of a distillation, each with its own columns, language and task."""

import dataclasses
from collections.abc import Sequence

from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.sources.dataset_spec import split_values
from flax_distil.data.sources.load_datasets import load_datasets
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.distillation.config import DistillConfig
from flax_distil.text.normalizers import Normalizer, get_model_normalizer
from flax_distil.text.tokenizer import WhisperTokenizer

DEFAULT_TEXT_COLUMN = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """An evaluation set with all its rows, and how it is transcribed.

    Attributes:
        source: All rows, a table or a stream of them.
        labels: Builder of the targets of the loss.
        language: Language of the speech.
        task: "transcribe" or "translate".
        normalize: Normalizer of transcripts and references before they are compared.
    """

    source: SpeechDataset | IterableSpeechDataset
    labels: LabelBuilder
    language: str | None
    task: str
    normalize: Normalizer

    @property
    def name(self) -> str:
        """Name under which the scores are logged."""
        return self.source.name


def evaluation_sets(config: DistillConfig, tokenizer: WhisperTokenizer) -> list[EvaluationSet]:
    """Open the data sets of ``eval_dataset_name``, if there are any.

    A setting that is not given for the evaluation is that of the training data.

    Raises:
        InputError: If a data set, split, column or language is unknown, or the values of a setting are
            neither one nor as many as the evaluation sets.
    """
    spec = config.evaluation.eval_dataset_name
    if spec is None:
        return []
    audio = _values(config, "audio_column_name", "audio columns")
    texts = _values(config, "text_column_name", "text columns")
    languages = _values(config, "language", "languages")
    tasks = _values(config, "task", "tasks")
    chosen = dataclasses.replace(
        config.data.reading.dataset_spec(spec),
        streaming=config.evaluation.eval_streaming,
        config_name=config.evaluation.eval_dataset_config_name,
        split=config.evaluation.eval_split_name,
        audio_column="+".join(column or "audio" for column in audio),
        text_column="+".join(column or DEFAULT_TEXT_COLUMN for column in texts),
        max_samples=config.evaluation.max_eval_samples,
    )
    return [
        EvaluationSet(
            source=source,
            labels=LabelBuilder(tokenizer, config.data.labels_of(language, task)),
            language=language,
            task=task or "transcribe",
            normalize=get_model_normalizer(
                language,
                task,
                is_multilingual=tokenizer.special.is_multilingual,
                name=config.data.reading.normalizer,
            ),
        )
        for source, language, task in zip(load_datasets(chosen), languages, tasks, strict=True)
    ]


def _values(config: DistillConfig, name: str, what: str) -> Sequence[str | None]:
    """Return a setting of every evaluation set: the evaluation's own, or else that of the training data."""
    spec = config.evaluation.eval_dataset_name or ""
    given = getattr(config.evaluation, f"eval_{name}")
    if given is not None:
        return split_values(given, what, spec)
    of_training = flatten(config.data)[name]
    trained = split_values(of_training, what, config.data.train_dataset_name)
    count = len(split_values(None, what, spec))
    if len(set(trained)) == 1:
        return [trained[0]] * count
    if len(trained) != count:
        raise InputError(
            f"{name} {of_training!r} of the training data has {len(trained)} values for {count} "
            f"evaluation sets ({spec}): give eval_{name}"
        )
    return trained
