"""Settings of the training data."""

import dataclasses
from typing import Any, TypeVar

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.checks import check_channel, check_positive
from flax_distil.core.errors import InputError
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
from flax_distil.data.remote.retries import RetryPolicy
from flax_distil.text.normalizers import check_normalizer

STOPPING_STRATEGIES = ("first_exhausted", "all_exhausted")

Settings = TypeVar("Settings", bound="TrainingDataConfig")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """Settings of the training data.

    Attributes:
        train_dataset_name: Training data: Hub id, save_to_disk folder, audio folder, Parquet, Arrow, tar or
            JSONL files, local or at gs://, s3:// or https:// addresses; several joined by +.
        train_dataset_config_name: Configuration of the training data; joined by + for several.
        train_split_name: Split of the training data; joined by + for several.
        train_dataset_samples: Numbers joined by +, one per data set: they are mixed in these proportions. By
            default every sample of every data set comes once in an epoch (streamed: in equal parts).
        stopping_strategy: Where several are mixed, an epoch ends for all with the first that is exhausted
            (first_exhausted), or each goes on by itself until all were (all_exhausted).
        streaming: Read the training data from front to back and never all of them at once.
        shuffle_buffer_size: Rows that are shuffled together when streaming.
        source_retry_seconds: How long a server or bucket that fails is asked again before the run ends.
        audio_column_name: Column of recordings; joined by + for several data sets.
        channel: Channel of the recordings to take, in training and evaluation, counted from 0; by default the
            mean of all.
        text_column_name: Column of reference texts; joined by + for several.
        label_column_name: Column of pseudo-labels to train on; an empty name trains on the references. Joined
            by + for several data sets.
        speaker_column_name: Column that tells speakers apart, for packing and prompts; by default speaker_id,
            speaker or source_id where there is one. Joined by + for several data sets.
        max_train_samples: Use only this many training samples of each data set.
        dataset_cache_dir: Where data sets are downloaded to and converted, and the verdicts of filters kept.
        preprocessing_num_workers: Processes that filter the rows of a table and count the tokens of their
            labels; by default one, and for more than 20,000 rows the machine's cores.
        language: Language of the speech, name or code; needed by multilingual models. Joined by + for
            training data sets of several languages.
        task: transcribe or translate; joined by + for several data sets.
        normalizer: How pseudo-labels are compared with references, in training and evaluations: whisper (as
            published figures), basic_keep_marks (for languages with vowel signs, and for Turkish), indic,
            or none.
        wer_threshold: Keep a training sample only if its pseudo-label's word error rate is below
            this many percent (10 in the paper); by default none is dropped.
        min_duration_in_seconds: Training recordings must be longer.
        max_duration_in_seconds: Training recordings must be shorter; at most 30.
        min_avg_logprob: Keep a training sample only from this average log-probability of the teacher on.
        max_compression_ratio: Keep a training sample only up to this compression ratio of its label.
        max_no_speech_prob: Keep a training sample only up to this probability of no speech.
        drop_upper_case: Drop training samples whose label is in capitals throughout.
        max_label_length: Longest label in tokens; training samples above are dropped and counted.
        timestamp_probability: How often a label that has timestamps keeps them.
        round_timestamps: Round timestamps to tenths of a second.
        condition_on_prev_probability: How often the text before, of the same speaker, is given as a prompt.
        concatenate_audio: Join neighbouring samples of one speaker to up to 30 s, after the filters.
        sort_by_speaker: Put the samples of each speaker of a table behind each other first, so that they can
            be joined, and prompted, where speakers take turns.
        mask_time_prob: Share of the frames that SpecAugment masks.
        mask_time_length: Frames of 10 ms in one mask.
        mask_feature_prob: Share of the mel bins that SpecAugment masks.
        mask_feature_length: Mel bins in one mask.
        white_noise_prob: How often white noise is added.
        babble_noise_prob: How often babble, made of other samples of the batch, is added.
        recorded_noise_prob: How often a recording of noise_dataset_name is added.
        noise_dataset_name: Recordings of noise; as for train_dataset_name.
        noise_snr: Least and greatest signal-to-noise ratio of added noise in dB; by default 5 and 30.
        speed_factors: Speeds of which one is drawn for each sample, as 0.9 1.0 1.1; by default its own.
    """

    train_dataset_name: str
    train_dataset_config_name: str | None = None
    train_split_name: str | None = None
    train_dataset_samples: str | None = None
    stopping_strategy: str = "first_exhausted"
    streaming: bool = False
    shuffle_buffer_size: int = 500
    source_retry_seconds: float = 1800.0
    audio_column_name: str = "audio"
    channel: int | None = None
    text_column_name: str | None = "text"
    label_column_name: str = "whisper_transcript"
    speaker_column_name: str | None = None
    max_train_samples: int | None = None
    dataset_cache_dir: str | None = None
    preprocessing_num_workers: int | None = None
    language: str | None = None
    task: str = "transcribe"
    normalizer: str = "whisper"
    wer_threshold: float | None = None
    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float = 30.0
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None
    drop_upper_case: bool = False
    max_label_length: int = 256
    timestamp_probability: float = 0.2
    round_timestamps: bool = False
    condition_on_prev_probability: float = 0.2
    concatenate_audio: bool = False
    sort_by_speaker: bool = False
    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    white_noise_prob: float = 0.0
    babble_noise_prob: float = 0.0
    recorded_noise_prob: float = 0.0
    noise_dataset_name: str | None = None
    noise_snr: list[float] | None = None
    speed_factors: list[float] | None = None

    def __post_init__(self) -> None:
        if self.stopping_strategy not in STOPPING_STRATEGIES:
            raise InputError(
                f"stopping_strategy {self.stopping_strategy!r} is unknown: "
                f"expected {' or '.join(STOPPING_STRATEGIES)}"
            )
        check_positive(self, "max_train_samples", "shuffle_buffer_size", "preprocessing_num_workers")
        check_normalizer(self.normalizer)
        check_channel(self.channel)
        if self.sort_by_speaker and self.streaming:
            raise InputError("sort_by_speaker sorts tables, and streaming reads none: leave one of them out")
        if self.source_retry_seconds < 0:
            raise InputError(f"source_retry_seconds {self.source_retry_seconds:g} is negative")
        if self.noise_snr is not None and len(self.noise_snr) != 2:
            raise InputError(
                f"noise_snr has {len(self.noise_snr)} values: expected two, the least and the greatest in dB"
            )
        if bool(self.recorded_noise_prob) != (self.noise_dataset_name is not None):
            raise InputError(
                f"recorded_noise_prob {self.recorded_noise_prob:g} and noise_dataset_name "
                f"{self.noise_dataset_name!r} go together: give both or neither"
            )
        _ = self.filters, self.augmentation  # check the rest
        LabelConfig(**self._label_options)

    def within(self: "Settings", window_seconds: float) -> "Settings":
        """Return these settings for an encoder that hears so much at once: longer recordings are dropped."""
        longest = min(self.max_duration_in_seconds, window_seconds)
        return dataclasses.replace(self, max_duration_in_seconds=longest)

    @property
    def filters(self) -> FilterConfig:
        """Which rows stay."""
        return FilterConfig(
            wer_threshold=self.wer_threshold,
            min_duration_in_seconds=self.min_duration_in_seconds,
            max_duration_in_seconds=self.max_duration_in_seconds,
            min_avg_logprob=self.min_avg_logprob,
            max_compression_ratio=self.max_compression_ratio,
            max_no_speech_prob=self.max_no_speech_prob,
            drop_upper_case=self.drop_upper_case,
        )

    def labels(self, language: str | None, task: str | None) -> LabelConfig:
        """How texts of a language become labels."""
        return LabelConfig(language=language, task=task or "transcribe", **self._label_options)

    @property
    def augmentation(self) -> AugmentationConfig:
        """What is done to the training audio."""
        low, high = self.noise_snr or (5.0, 30.0)
        return AugmentationConfig(
            mask_time_prob=self.mask_time_prob,
            mask_time_length=self.mask_time_length,
            mask_feature_prob=self.mask_feature_prob,
            mask_feature_length=self.mask_feature_length,
            white_noise_prob=self.white_noise_prob,
            babble_noise_prob=self.babble_noise_prob,
            recorded_noise_prob=self.recorded_noise_prob,
            noise_snr=(low, high),
            speed_factors=tuple(self.speed_factors or (1.0,)),
        )

    @property
    def retries(self) -> RetryPolicy:
        """When a server is asked again."""
        return RetryPolicy.limited(self.source_retry_seconds)

    @property
    def _label_options(self) -> dict[str, Any]:
        return {
            "timestamp_probability": self.timestamp_probability,
            "condition_on_prev_probability": self.condition_on_prev_probability,
            "round_timestamps": self.round_timestamps,
            "max_label_length": self.max_label_length,
        }
