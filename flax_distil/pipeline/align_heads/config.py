"""The settings of ``align-heads``."""

import dataclasses

from flax_distil.checkpoints.model_config import TeacherSourceConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.nested import nested
from flax_distil.transcription.config import DatasetConfig, DatasetTranscriptionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsConfig(DatasetTranscriptionConfig, TeacherSourceConfig):
    """Find the heads of a student whose attention gives word timestamps.

    The teacher transcribes the recordings and tells when its words are spoken. Of the student, the heads are
    kept that agree best. Every other recording is held out to check them.

    Attributes:
        teacher_model_name_or_path: Teacher with the same vocabulary, a folder or Hub id.
        data: Data sets to transcribe.
        max_heads: Maximum number of heads to keep.
        output_dir: Folder to write the student with its heads to. By default its own folder is changed.
        overwrite_output_dir: Replace the checkpoint of an earlier run in output_dir; other files stay.

    Raises:
        InputError: If a value is out of range.
    """

    teacher_model_name_or_path: str
    data: DatasetConfig = nested(
        defaults={"max_samples": 128},
        help={
            "max_samples": "Use only the first samples of each data set, as many as this. More than some "
            "hundreds change little."
        },
    )
    max_heads: int = 10
    output_dir: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_heads")
