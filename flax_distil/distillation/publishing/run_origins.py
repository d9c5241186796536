"""What a run is made from, for its card: models and their sizes, data sets and their licenses."""

import math
from typing import Any

from flax_distil.checkpoints.formats.mapping import leaf_shapes
from flax_distil.checkpoints.hub.cards import data_set_license, hub_id, short_name
from flax_distil.checkpoints.student import spaced_layers
from flax_distil.data.sources.dataset_spec import split_names, split_values
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.data import DistillData
from flax_distil.model.config import WhisperConfig


def describe_origins(
    config: DistillConfig, data: DistillData, *, student: WhisperConfig, teacher: WhisperConfig | None
) -> dict[str, Any]:
    """Return what ``run.json`` says of the models and data sets; no name tells of a folder of this machine.

    Args:
        config: Settings of the run.
        data: Its data.
        student: Architecture of the student.
        teacher: Architecture of the teacher, also of one that takes no part in the loss; None without one.
    """
    name = config.teacher.teacher_model_name_or_path or config.model.model_name_or_path or ""
    models: dict[str, Any] = {"student": describe_model(student)}
    if teacher is not None:
        models["teacher"] = {"name": short_name(name), "id": hub_id(name), **describe_model(teacher)}
        models["student"]["decoder_layers_of_teacher"] = _copied_layers(config, teacher)
    if config.model.model_name_or_path:
        started = config.model.model_name_or_path
        models["student"] |= {"name": short_name(started), "id": hub_id(started)}
    return {"models": models, "data_sets": _training_sets(config, data) + _evaluation_sets(config, data)}


def describe_model(config: WhisperConfig) -> dict[str, Any]:
    """Return layers, width, parameters and window of a model."""
    return {
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "d_model": config.d_model,
        "parameters": sum(math.prod(shape) for shape in leaf_shapes(config).values()),
        "window_seconds": config.window_seconds,
    }


def _copied_layers(config: DistillConfig, teacher: WhisperConfig) -> list[int] | None:
    """Return which layers of the teacher's decoder the student began as; None if it was not made of them."""
    if config.model.model_name_or_path or config.student.student_layer_init != "copy":
        return None
    layers = config.student.layers
    chosen: list[int] | None = layers["decoder_layer_indices"]
    return chosen or spaced_layers(layers["decoder_layers"], of=teacher.decoder_layers)


def _training_sets(config: DistillConfig, data: DistillData) -> list[dict[str, Any]]:
    given, spec = config.data, config.data.train_dataset_name
    columns = zip(
        data.train.sources,
        split_names(spec),
        split_values(given.train_dataset_config_name, "configurations", spec),
        split_values(given.train_split_name, "splits", spec),
        split_values(given.labels.language, "languages", spec),
        strict=True,
    )
    return [
        {
            "use": "training",
            "name": source.name,
            "id": hub_id(name),
            "config": subset,
            "split": split,
            "language": language,
            "license": data_set_license(name),
        }
        for source, name, subset, split, language in columns
    ]


def _evaluation_sets(config: DistillConfig, data: DistillData) -> list[dict[str, Any]]:
    given, spec = config.evaluation, config.evaluation.eval_dataset_name
    if spec is None:
        return []
    columns = zip(
        data.evaluation,
        split_names(spec),
        split_values(given.eval_dataset_config_name, "configurations", spec),
        split_values(given.eval_split_name, "splits", spec),
        strict=True,
    )
    return [
        {
            "use": "evaluation", "name": chosen.name, "id": hub_id(name), "config": subset, "split": split,
            "language": chosen.language,
        }
        for chosen, name, subset, split in columns
    ]  # fmt: skip
