"""Settings shared by the jobs that transcribe: pseudo-label, eval, transcribe, align-heads."""

import dataclasses

from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.model_config import ModelConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.nested import nested
from flax_distil.data.config import ReadingConfig
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.config import ParallelConfig
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
        assistant_model_name_or_path: Student that drafts tokens, several of which the model verifies in one
            step. The transcripts stay the same and take less time. The student's encoder does not run if it
            equals that of the model.
        num_assistant_tokens: Maximum number of tokens of a draft, which ends earlier where the student is
            unsure. By default 5, and 3 on a CPU.
    """

    assistant_model_name_or_path: str | None = None
    num_assistant_tokens: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "num_assistant_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Batches.

    Attributes:
        per_device_eval_batch_size: Number of recordings per device.
    """

    per_device_eval_batch_size: int = 16

    def __post_init__(self) -> None:
        check_positive(self, "per_device_eval_batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionConfig:
    """Model, and how it transcribes.

    Attributes:
        model: Model that transcribes.
        assistant: Student that drafts tokens for the model.
        decoding: What to transcribe into, and how.
        compute: How the model computes.
        devices: How the work is divided over devices and processes.
        batches: How many recordings are transcribed at once.
    """

    model: ModelConfig
    assistant: AssistantConfig = AssistantConfig()
    decoding: TranscriptionOptions = nested(TranscriptionOptions(), hide=LONG_FORM_OPTIONS, rename=FLAG_NAMES)
    compute: ComputeOptions = nested(
        ComputeOptions(), hide=("use_scan", "gradient_checkpointing"),
        help={
            "dtype": "Element type of the computations: float32, bfloat16 or float16; or int8 for the "
            "products of the layers, with float32 (CPU) or bfloat16 for the rest."
        },
    )  # fmt: skip
    devices: ParallelConfig = nested(ParallelConfig())
    batches: BatchConfig = BatchConfig()

    def model_source(self, name: str) -> ModelSource:
        """Return where a model of the job is."""
        return self.model.model_source(name)

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
        max_samples: Use only this many samples, the first ones, of each data set.
    """

    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    max_samples: int | None = None
    reading: ReadingConfig = nested(ReadingConfig(), section="Data sets")

    def __post_init__(self) -> None:
        check_positive(self, "max_samples")

    @property
    def spec(self) -> DatasetSpec:
        """The data sets of ``dataset_name``, and how they are opened."""
        return dataclasses.replace(
            self.reading.dataset_spec(self.dataset_name),
            config_name=self.dataset_config_name,
            split=self.dataset_split_name,
            max_samples=self.max_samples,
        )
