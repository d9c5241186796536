"""Settings of the evaluations during training: which data, and how the student transcribes them."""

import dataclasses

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.transcription.config import BatchConfig
from flax_distil.transcription.options import TranscriptionOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation while training.

    Attributes:
        eval_dataset_name: Evaluation data; several are joined by +. By default nothing is evaluated.
        eval_dataset_config_name: Configuration of the evaluation data; joined by + for several.
        eval_split_name: Split of the evaluation data; joined by + for several.
        eval_audio_column_name: Column of recordings of the evaluation data; joined by + for several. By
            default audio_column_name.
        eval_text_column_name: Column of reference texts of the evaluation data; joined by + for several. By
            default text_column_name, and text where the training data have none.
        eval_language: Language of the evaluation data; joined by + for several. By default language.
        eval_task: transcribe or translate; joined by + for several. By default task.
        eval_streaming: Read the evaluation data from front to back in each evaluation, and keep none of them
            on disk.
        max_eval_samples: Use only this many samples of each evaluation data set.
        batches: How many samples are transcribed at once.
        eval_steps: Number of updates between two evaluations; by default there is one at the end only.
        decoding: How the student transcribes.

    Raises:
        InputError: If a value is out of range, or evaluations are asked for without data.
    """

    eval_dataset_name: str | None = None
    eval_dataset_config_name: str | None = None
    eval_split_name: str | None = None
    eval_audio_column_name: str | None = None
    eval_text_column_name: str | None = None
    eval_language: str | None = None
    eval_task: str | None = None
    eval_streaming: bool = False
    max_eval_samples: int | None = None
    batches: BatchConfig = nested(
        BatchConfig(),
        help={"per_device_eval_batch_size": "Number of evaluation samples per device."},
        section="Evaluation while training",
    )
    eval_steps: int | None = None
    decoding: TranscriptionOptions = nested(
        TranscriptionOptions(max_new_tokens=128),
        show={"max_new_tokens", "num_beams", "return_timestamps"},
        rename={"max_new_tokens": "generation_max_length", "num_beams": "generation_num_beams"},
        types={"max_new_tokens": int},
        help={
            "max_new_tokens": "Maximum number of tokens generated per sample in an evaluation.",
            "num_beams": "Number of beams of an evaluation; 1 chooses the most likely token at each step.",
            "return_timestamps": "Let the student predict timestamps in an evaluation; they do not count as "
            "words.",
        },
        section="Evaluation while training",
    )

    def __post_init__(self) -> None:
        check_positive(self, "eval_steps", "max_eval_samples")
        if self.eval_dataset_name is not None:
            return
        for name in ("eval_steps", "eval_text_column_name", "eval_audio_column_name", "eval_language"):
            if (value := getattr(self, name)) is not None:
                raise InputError(f"{name} {value} is given without eval_dataset_name")

    def evaluation_options(self, language: str | None, task: str) -> TranscriptionOptions:
        """Return how the student transcribes a data set of a language."""
        return dataclasses.replace(self.decoding, language=language, task=task)
