"""Configuration of the command ``init-student``."""

import dataclasses
from typing import Any

from flax_distil.checkpoints.model_config import ModelConfig, StudentConfig, WeightsConfig
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
            "student_layer_init": "layer_init",
        },
    )
    output: OutputConfig = nested(help=_OUTPUT)
    weights: WeightsConfig = nested(WeightsConfig(export_dtype="float32"), **_WEIGHTS)
