"""The training data of a run: opened, checked, filtered, joined, each data set with its own language."""

import dataclasses
import logging
from collections.abc import Sequence

from flax_distil.data import (
    DropReport,
    SkippedSamples,
    TableSource,
    TrainingSource,
)
from flax_distil.text import WhisperTokenizer
from flax_distil.workflows.training_data_config import TrainingDataConfig

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training data sets, ready for a pipeline.

    Attributes:
        sources: One per data set.
        dropped: What the filters dropped of tables; streams are filtered as they come.
        skipped: Rows that cannot be used; pipelines add to it.
    """

    sources: Sequence[TrainingSource]
    dropped: DropReport
    skipped: SkippedSamples = dataclasses.field(default_factory=SkippedSamples)

    @property
    def samples(self) -> int | None:
        """Samples of an epoch; None where a stream's rows are not counted before."""
        if not all(isinstance(source, TableSource) for source in self.sources):
            return None
        return sum(len(source) for source in self.sources if isinstance(source, TableSource))


def load_training_data(config: TrainingDataConfig, tokenizer: WhisperTokenizer) -> TrainingData:
    """Open the data sets, check their columns, filter and join the rows of tables.

    Raises:
        InputError: if a data set, split, column or language is unknown, two lists of values are
            unequal, or no sample is left.
    """
    options = {
        "config_name": config.train_dataset_config_name,
        "split": config.train_split_name,
        "audio_column": config.audio_column_name,
        "text_column": config.text_column_name,
        "label_column": config.label_column_name or None,
        "speaker_column": config.speaker_column_name,
        "max_samples": config.max_train_samples,
    }
