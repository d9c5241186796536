"""The settings of ``align-heads``."""

import dataclasses

from flax_distil.checkpoints.model_config import TeacherSourceConfig
from flax_distil.core.checks import check_positive
from flax_distil.transcription.config import DatasetTranscriptionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsConfig(DatasetTranscriptionConfig, TeacherSourceConfig):
    """Find the heads of a student whose attention gives word timestamps.

    The teacher transcribes the recordings and tells when its words are spoken; of the student, the heads are
    kept that agree best. Every other recording is held out to check them.

    Attributes:
        model_name_or_path: Student, a Hugging Face folder or Hub id.
        teacher_model_name_or_path: Teacher of the same vocabulary, a folder or Hub id.
        max_samples: Use only this many recordings of each data set; more than some hundreds change little.
        max_heads: Keep at most this many heads.
        output_dir: Folder to write the student with its heads to; by default its own folder is changed.
        overwrite_output_dir: Replace the checkpoint of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range.
    """

    teacher_model_name_or_path: str
    max_samples: int | None = 128
    max_heads: int = 10
    output_dir: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_heads")
