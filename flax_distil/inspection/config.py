"""Configuration of the command ``data inspect``."""

import dataclasses

from flax_distil.checkpoints.model_config import ModelConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.nested import nested
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.storage.output_dir import OutputConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show training data before training: hours, lengths, dropped samples, and samples with their tokens.

    Attributes:
        max_stream_samples: Number of rows to read of each streamed data set.
        num_shown_samples: Number of samples to decode and plot: the first ones that training with this seed
            uses.

    Raises:
        InputError: If a value is out of range.
    """

    model: ModelConfig = nested(
        help={
            "model_name_or_path": "Checkpoint whose tokenizer makes the labels: the student, or else the "
            "teacher; its weights are not read."
        }
    )
    data: TrainingDataConfig = nested(hide={"dataloader_num_workers"})
    max_stream_samples: int = 10_000
    num_shown_samples: int = 4
    output: OutputConfig = nested(
        OutputConfig(output_dir=None),
        help={
            "output_dir": "Folder of report.json, statistics.png and samples.png; by default the report is "
            "only printed.",
            "overwrite_output_dir": "Replace the reports of an earlier run in output_dir; other files stay.",
        },
    )

    def __post_init__(self) -> None:
        check_positive(self, "max_stream_samples", "num_shown_samples")
