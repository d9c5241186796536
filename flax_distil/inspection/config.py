"""Settings of ``data inspect``."""

import dataclasses

from flax_distil.checkpoints.model_config import ModelSourceConfig
from flax_distil.core.checks import check_positive
from flax_distil.data.training.config import TrainingDataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectConfig(TrainingDataConfig, ModelSourceConfig):
    """Look at training data before a run: hours, lengths, drops, and samples with their tokens.

    Attributes:
        model_name_or_path: Checkpoint whose tokenizer makes the labels: the student, or else the teacher;
            its weights are not read.
        seed: The run's: decides which samples come first, on timestamps and prompts.
        max_stream_samples: Rows read of each streamed data set.
        num_shown_samples: Samples to decode and draw: the first that a run with this seed trains on.
        output_dir: Folder of report.json, statistics.png and samples.png; by default all is only printed.
        overwrite_output_dir: Replace the reports of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range.
    """

    model_name_or_path: str
    seed: int = 0
    max_stream_samples: int = 10_000
    num_shown_samples: int = 4
    output_dir: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_stream_samples", "num_shown_samples")
