"""Settings of the training data."""

import dataclasses

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.non_speech.config import NonSpeechConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested, replace
from flax_distil.data.config import NoiseDatasetConfig, ReadingConfig, SpeakerConfig
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig

STOPPING_STRATEGIES = ("first_exhausted", "all_exhausted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """Training data.

    Attributes:
        train_dataset_name: Training data: Hub id, save_to_disk folder, audio folder, Parquet, Arrow, tar or
            JSONL files, local or at gs://, s3:// or https:// addresses; several joined by +.
        train_dataset_config_name: Configuration of the training data; joined by + for several.
        train_split_name: Split of the training data; joined by + for several.
        train_dataset_samples: Numbers joined by +, one per data set: the data sets are mixed in these
            proportions. By default an epoch has every sample of every data set once; streamed data sets are
            mixed in equal parts.
        train_dataset_kl_weights: Factors of kl_weight joined by +, one per data set. With 0, a data set is
            trained on its labels alone: where they are not what the teacher would say, such as translations.
            By default the factor of every data set is 1.
        stopping_strategy: Where several data sets are mixed, an epoch ends for all of them when the first is
            exhausted (first_exhausted), or each is repeated until all were exhausted (all_exhausted).
        shuffle_buffer_size: Number of rows that are shuffled together when streaming.
        label_column_name: Column of pseudo-labels to train on; an empty name trains on the reference texts.
            Joined by + for several data sets.
        max_train_samples: Use only this many training samples of each data set.
        preprocessing_num_workers: Number of processes that filter the rows of a table and count the tokens of
            their labels; by default one, and for more than 20,000 rows the number of the machine's cores.
        seed: Number that decides the order of the samples, which labels keep their timestamps, and dropout.

    Raises:
        InputError: If a value is out of range, or two contradict each other.
    """

    train_dataset_name: str
    train_dataset_config_name: str | None = None
    train_split_name: str | None = None
    train_dataset_samples: str | None = None
    train_dataset_kl_weights: str | None = None
    stopping_strategy: str = "first_exhausted"
    shuffle_buffer_size: int = 500
    label_column_name: str = "whisper_transcript"
    max_train_samples: int | None = None
    preprocessing_num_workers: int | None = None
    seed: int = 0
    reading: ReadingConfig = nested(ReadingConfig(), section="Training data")
    speakers: SpeakerConfig = nested(SpeakerConfig())
    labels: LabelConfig = nested(LabelConfig(task="transcribe"), types={"task": str})
    filters: FilterConfig = nested(FilterConfig())
    noise: NoiseDatasetConfig = nested(NoiseDatasetConfig(), section="Noise and augmentation")
    augmentation: AugmentationConfig = nested(AugmentationConfig())
    non_speech: NonSpeechConfig = nested(NonSpeechConfig())

    def __post_init__(self) -> None:
        if self.stopping_strategy not in STOPPING_STRATEGIES:
            raise InputError(
                f"stopping_strategy {self.stopping_strategy!r} is unknown: "
                f"expected {' or '.join(STOPPING_STRATEGIES)}"
            )
        check_positive(self, "max_train_samples", "shuffle_buffer_size", "preprocessing_num_workers")
        self.speakers.check_streaming(self.reading.streaming)
        if bool(self.augmentation.recorded_noise_prob) != (self.noise.noise_dataset_name is not None):
            raise InputError(
                f"recorded_noise_prob {self.augmentation.recorded_noise_prob:g} and noise_dataset_name "
                f"{self.noise.noise_dataset_name!r} go together: give both or neither"
            )

    @property
    def has_kl_weights(self) -> bool:
        """Whether rows of a batch differ in how much the KL term counts."""
        return self.train_dataset_kl_weights is not None or self.non_speech.replaces_samples

    def within(self, window_seconds: float) -> "TrainingDataConfig":
        """Return these settings for an encoder with this window; longer recordings are dropped."""
        return replace(self, max_duration_in_seconds=min(self.filters.durations.longest, window_seconds))

    def labels_of(self, language: str | None, task: str | None) -> LabelConfig:
        """Return how the texts of one data set become labels."""
        return dataclasses.replace(self.labels, language=language, task=task or "transcribe")
