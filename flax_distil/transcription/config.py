"""Settings shared by the jobs that transcribe: pseudo-label, eval, transcribe, align-heads."""

import dataclasses

from flax_distil.checkpoints.model_config import ModelSourceConfig
from flax_distil.core.checks import check_channel, check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.data.remote.retries import RetryPolicy
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.config import ParallelConfig
from flax_distil.text.normalizers import check_normalizer
from flax_distil.transcription.options import TranscriptionOptions

LONG_FORM_OPTIONS = (
    "word_timestamps", "condition_on_prev_tokens", "prepend_punctuations", "append_punctuations",
    "clip_timestamps", "hallucination_silence_threshold", "vad", "vad_threshold", "vad_neg_threshold",
    "vad_min_speech_duration_ms", "vad_max_speech_duration_s", "vad_min_silence_duration_ms",
    "vad_speech_pad_ms",
)  # fmt: skip
"""Options that jobs for recordings of one window do not have."""

FLAG_NAMES = {"max_new_tokens": "generation_max_length", "temperature": "temperatures"}
"""Options whose flags have other names, those of transformers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssistantConfig:
    """Assistant model.

    Attributes:
        assistant_model_name_or_path: Student that drafts tokens, several of which the model checks at a time.
            The transcripts are the same, sooner. Its encoder does not run if it equals that of the model.
        num_assistant_tokens: Maximum number of tokens of a draft, which ends earlier where the student is
            unsure. By default 5, and 3 on a CPU.
    """

    assistant_model_name_or_path: str | None = None
    num_assistant_tokens: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "num_assistant_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionConfig(ModelSourceConfig):
    """Model and batches.

    Attributes:
        model_name_or_path: Whisper checkpoint: a Hugging Face or CTranslate2 folder, or a Hub id.
        assistant: Student that drafts tokens for the model.
        decoding: What to transcribe into, and how.
        compute: How the model computes.
        devices: How the work is divided over devices and processes.
        per_device_eval_batch_size: Number of recordings per device.
    """

    model_name_or_path: str
    assistant: AssistantConfig = AssistantConfig()
    decoding: TranscriptionOptions = nested(TranscriptionOptions(), hide=LONG_FORM_OPTIONS, rename=FLAG_NAMES)
    compute: ComputeOptions = nested(
        ComputeOptions(), hide=("use_scan", "gradient_checkpointing"),
        help={"dtype": "What the model computes in: float32, bfloat16 or float16."},
    )  # fmt: skip
    devices: ParallelConfig = nested(ParallelConfig())
    per_device_eval_batch_size: int = 16

    def __post_init__(self) -> None:
        check_positive(self, "per_device_eval_batch_size")

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into, with what other settings of the job imply."""
        return self.decoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Data sets.

    Attributes:
        dataset_name: Hub id, save_to_disk folder, audio folder, Parquet or JSONL file; several are joined by
            +.
        dataset_config_name: Configuration of the data set; several are joined by +.
        dataset_split_name: Split of the data set; several are joined by +.
        dataset_cache_dir: Folder where data sets are downloaded to and converted.
        source_retry_seconds: How long a server that fails is asked again before the job ends.
        audio_column_name: Column of recordings; those of several data sets are joined by +.
        channel: Channel of the recordings to take, counted from 0. By default the mean of all.
        max_samples: Use only the first samples of each data set, as many as this.
        dataloader_num_workers: Number of threads that decode audio. By default one for each core.
    """

    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    dataset_cache_dir: str | None = None
    source_retry_seconds: float = 1800.0
    audio_column_name: str = "audio"
    channel: int | None = None
    max_samples: int | None = None
    dataloader_num_workers: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "max_samples", "dataloader_num_workers")
        check_channel(self.channel)
        if self.source_retry_seconds < 0:
            raise InputError(f"source_retry_seconds {self.source_retry_seconds:g} is below 0")

    @property
    def retries(self) -> RetryPolicy:
        """When a server is asked again."""
        return RetryPolicy.limited(self.source_retry_seconds)

    def spec(self, text_column: str | None) -> DatasetSpec:
        """Return the data sets of ``dataset_name``, and how they are opened."""
        return DatasetSpec(
            name=self.dataset_name,
            config_name=self.dataset_config_name,
            split=self.dataset_split_name,
            audio_column=self.audio_column_name,
            text_column=text_column,
            max_samples=self.max_samples,
            cache_dir=self.dataset_cache_dir,
            channel=self.channel,
            policy=self.retries,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetTranscriptionConfig(TranscriptionConfig):
    """Comparison of texts.

    Attributes:
        data: Data sets to transcribe.
        normalizer: How texts are compared: whisper (as in published figures), basic_keep_marks (for languages
            with vowel signs, and for Turkish), indic, or none.
    """

    data: DatasetConfig
    normalizer: str = "whisper"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_normalizer(self.normalizer)
