"""Configuration of filters, which decide on the examples to keep, and of labels, which are made of texts."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.data.config import DurationConfig
from flax_distil.text.config import LanguageConfig

DECODER_POSITIONS = 448
"""Number of decoder positions of every Whisper model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Filters of the training data.

    Attributes:
        wer_threshold: Keep a training sample only if the word error rate of its pseudo-label against the
            reference text is below this percentage (10 in the Distil-Whisper paper); by default the two are
            not compared.
        durations: Limits of the duration of recordings.
        min_avg_logprob: Keep a training sample only if the teacher's average log-probability of its label is
            at least this.
        max_compression_ratio: Keep a training sample only if the compression ratio of its label is at most
            this; 2.4 detects repetitions.
        max_no_speech_prob: Keep a training sample only if the teacher's probability of no speech is at most
            this.
        drop_upper_case: Drop training samples whose label is in upper case only; scripts without case are
            never dropped.

    Raises:
        InputError: If a value is out of range.
    """

    wer_threshold: float | None = None
    durations: DurationConfig = nested(
        DurationConfig(max_duration_in_seconds=30.0),
        types={"max_duration_in_seconds": float},
        help={
            "min_duration_in_seconds": "Keep only training recordings that are longer than this.",
            "max_duration_in_seconds": "Keep only training recordings shorter than this; at most 30.",
        },
        section="Filters of the training data",
    )
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None
    drop_upper_case: bool = False

    def __post_init__(self) -> None:
        if self.durations.longest > 30:
            raise InputError(
                f"max_duration_in_seconds {self.durations.longest:g} is more than the 30 s of one window: "
                "expected max_duration_in_seconds <= 30"
            )
        if self.wer_threshold is not None and not self.wer_threshold > 0:
            raise InputError(
                f"wer_threshold must be a positive percentage, got {self.wer_threshold:g}: "
                "leave it out to keep all"
            )
        if self.max_no_speech_prob is not None and not 0 <= self.max_no_speech_prob <= 1:
            raise InputError(
                f"max_no_speech_prob must be a probability between 0 and 1, got {self.max_no_speech_prob:g}"
            )
        if self.min_avg_logprob is not None and not self.min_avg_logprob <= 0:
            raise InputError(
                f"min_avg_logprob must be the logarithm of a probability (at most 0), "
                f"got {self.min_avg_logprob:g}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(LanguageConfig):
    """Speech and labels.

    Attributes:
        language: Language of the speech, name or code; needed by multilingual models. Joined by + for
            training data sets of several languages.
        task: transcribe or translate; joined by + for several data sets.
        timestamp_probability: Probability that a label which has timestamps keeps them; otherwise they are
            removed and <|notimestamps|> is set.
        condition_on_prev_probability: Probability that the previous text of the same speaker is given as a
            prompt.
        round_timestamps: Round timestamps to tenths of a second.
        max_label_length: Longest label in tokens; training samples with longer ones are dropped and counted.

    Raises:
        InputError: If a value is out of range.
    """

    timestamp_probability: float = 0.2
    condition_on_prev_probability: float = 0.2
    round_timestamps: bool = False
    max_label_length: int = 256

    def __post_init__(self) -> None:
        for name in ("timestamp_probability", "condition_on_prev_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 1 <= self.max_label_length <= DECODER_POSITIONS:
            raise InputError(
                f"max_label_length must lie between 1 and {DECODER_POSITIONS} (the decoder's positions), "
                f"got {self.max_label_length}"
            )
