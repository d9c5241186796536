"""The settings of ``align-heads``."""

import dataclasses

from flax_distil.checkpoints.model_config import ModelConfig, TeacherConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.nested import nested
from flax_distil.storage.output_dir import OutputConfig
from flax_distil.transcription.config import DatasetConfig, TranscriptionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsConfig(TranscriptionConfig):
    """Find the attention heads of a student that give word timestamps.

    The teacher transcribes the recordings and tells when its words are spoken. Of the student, the heads are
    kept that agree best. Every other recording is held out to check them.

    Attributes:
        model: Student whose heads are sought.
        teacher: Teacher that tells when words are spoken.
        data: Data sets to transcribe.
        max_heads: Maximum number of heads to keep.
        output: Where the student is written.

    Raises:
        InputError: If a value is out of range.
    """

    model: ModelConfig = nested(help={"model_name_or_path": "Student, a Hugging Face folder or Hub id."})
    teacher: TeacherConfig = nested(
        help={"teacher_model_name_or_path": "Teacher with the same vocabulary, a folder or Hub id."}
    )
    data: DatasetConfig = nested(
        hide={"streaming", "text_column_name"},
        defaults={"max_samples": 128},
        help={
            "max_samples": "Use only this many samples, the first ones, of each data set. More than some "
            "hundreds change little."
        },
    )
    max_heads: int = 10
    output: OutputConfig = nested(
        OutputConfig(output_dir=None),
        help={
            "output_dir": "Folder to write the student with its heads to. By default its own folder is "
            "changed.",
            "overwrite_output_dir": "Replace the checkpoint of an earlier run in output_dir; other files "
            "stay.",
        },
    )

    def __post_init__(self) -> None:
        check_positive(self, "max_heads")
