"""Settings of the training data: which, how mixed, filtered, packed and labelled."""

import dataclasses

from flax_distil.core import InputError
from flax_distil.workflows.transcription_config import check_positive

STOPPING_STRATEGIES = ("first_exhausted", "all_exhausted")


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
        text_column_name: Column of reference texts, of training and evaluation data; joined by + for several.
        label_column_name: Column of pseudo-labels to train on; an empty name trains on the references.
        speaker_column_name: Column that tells speakers apart, for packing and prompts; by default speaker_id,
            speaker or source_id where there is one.
        max_train_samples: Use only this many training samples of each data set.
        dataset_cache_dir: Where data sets are downloaded to and converted.
        language: Language of the speech, name or code; needed by multilingual models. Joined by + for
            training data sets of several languages.
        task: transcribe or translate; joined by + for several data sets.
        wer_threshold: Keep a training sample only if its pseudo-label's word error rate is below
            this many percent (10 in the paper); by default none is dropped.
        min_duration_in_seconds: Training recordings must be longer.
        max_duration_in_seconds: Training recordings must be shorter; at most 30.
        min_avg_logprob: Keep a training sample only from this average log-probability of the teacher on.
        max_compression_ratio: Keep a training sample only up to this compression ratio of its label.
        max_no_speech_prob: Keep a training sample only up to this probability of no speech.
        max_label_length: Longest label in tokens; training samples above are dropped and counted.
        timestamp_probability: How often a label that has timestamps keeps them.
        round_timestamps: Round timestamps to tenths of a second.
        condition_on_prev_probability: How often the text before, of the same speaker, is given as a prompt.
        concatenate_audio: Join neighbouring samples of one speaker to up to 30 s, after the filters.
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
    text_column_name: str | None = "text"
    label_column_name: str = "whisper_transcript"
    speaker_column_name: str | None = None
    max_train_samples: int | None = None
    dataset_cache_dir: str | None = None
    language: str | None = None
    task: str = "transcribe"
    wer_threshold: float | None = None
    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float = 30.0
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None
    max_label_length: int = 256
    timestamp_probability: float = 0.2
    round_timestamps: bool = False
    condition_on_prev_probability: float = 0.2
    concatenate_audio: bool = False

    def __post_init__(self) -> None:
        if self.stopping_strategy not in STOPPING_STRATEGIES:
            raise InputError(
                f"stopping_strategy {self.stopping_strategy!r} is unknown: "
                f"expected {' or '.join(STOPPING_STRATEGIES)}"
            )
        check_positive(self, "max_train_samples", "shuffle_buffer_size")
