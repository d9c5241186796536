"""Configurations of the commands ``export`` and ``init-student``."""

import dataclasses
from typing import Any

from flax_distil.checkpoints.hub.config import HubModelConfig
from flax_distil.checkpoints.model_config import ModelConfig, StudentConfig, WeightsConfig
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.storage.output_dir import OutputConfig

_OUTPUT = {
    "output_dir": "Folder to write, here or in a bucket (gs://, s3://).",
    "overwrite_output_dir": "Replace the checkpoint of an earlier run in output_dir; other files stay.",
}

_WEIGHTS: dict[str, Any] = {
    "rename": {"export_dtype": "dtype"},
    "help": {"export_dtype": "Element type of the weights: float16, bfloat16 or float32."},
    "section": "Main flags",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Convert a checkpoint of any readable format, or one of a training run, to a Hugging Face folder.

    Attributes:
        checkpoint: Training checkpoint to export, of the run whose output_dir is model_name_or_path: latest,
            best (of the evaluations) or the number of a step.

    Raises:
        InputError: If ``checkpoint`` is none of these.
    """

    model: ModelConfig
    checkpoint: str | None = None
    output: OutputConfig = nested(help=_OUTPUT)
    weights: WeightsConfig = nested(WeightsConfig(), **_WEIGHTS)
    hub: HubModelConfig = nested(HubModelConfig())

    def __post_init__(self) -> None:
        which = self.checkpoint
        if which is not None and which not in ("latest", "best") and not which.isdigit():
            raise InputError(f"checkpoint {which!r} is neither latest, best nor a step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitStudentConfig:
    """Make a student from layers of a teacher."""

    teacher: ModelConfig = nested(
        rename={"model_name_or_path": "teacher_model_name_or_path"},
        help={"model_name_or_path": "Teacher, a folder or Hub id."},
        section="Teacher",
    )
    student: StudentConfig = nested(
        StudentConfig(),
        rename={
            "student_encoder_layers": "encoder_layers",
            "student_decoder_layers": "decoder_layers",
            "student_encoder_layer_indices": "encoder_layer_indices",
            "student_decoder_layer_indices": "decoder_layer_indices",
        },
    )
    output: OutputConfig = nested(help=_OUTPUT)
    weights: WeightsConfig = nested(WeightsConfig(export_dtype="float32"), **_WEIGHTS)
