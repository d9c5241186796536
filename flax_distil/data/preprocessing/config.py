"""Settings of the preparation of training data: which examples stay, and how texts become labels."""

import dataclasses

from flax_distil.core.errors import InputError

DECODER_POSITIONS = 448
"""Target positions of every Whisper model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which rows stay in the training set.

    Args:
        wer_threshold: Keep a row only if its pseudo-label's word error rate against the
            reference is below this many percent; 10 is the paper's. None does not compare.
        min_duration_in_seconds: Recordings must be longer than this.
        max_duration_in_seconds: Recordings must be shorter than this.
        min_avg_logprob: Keep a row only if the teacher's average log-probability is at least this.
        max_compression_ratio: Keep a row only if its label's compression ratio is at most this
            (2.4 tells loops); computed from the label where the data set has no such column.
        max_no_speech_prob: Keep a row only if the teacher's probability of no speech is at most this.
        drop_upper_case: Drop rows whose label is in upper case only, which a student would learn to write.
            It is the label that is judged, not the reference beside it: the WER ignores case. Scripts
            without case have none to drop.
    """

    wer_threshold: float | None = None
    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float = 30.0
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None
    drop_upper_case: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_duration_in_seconds < self.max_duration_in_seconds <= 30:
            raise InputError(
                "expected 0 <= min_duration_in_seconds < max_duration_in_seconds <= 30, got "
                f"{self.min_duration_in_seconds:g} and {self.max_duration_in_seconds:g}"
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
class LabelConfig:
    """How texts become labels.

    Args:
        language: Language of the texts, name or code; needed by multilingual models only.
        task: ``transcribe`` or ``translate``.
        timestamp_probability: How often a text that has timestamps keeps them. Otherwise they
            are stripped and ``<|notimestamps|>`` is set.
        condition_on_prev_probability: How often the previous text, where there is one, is
            given as a prompt.
        round_timestamps: Round timestamps to tenths of a second.
        max_label_length: Longest label in tokens, from ``<|startoftranscript|>`` to the last
            one before ``<|endoftext|>``, timestamps included; samples above are dropped and counted.
    """

    language: str | None = None
    task: str = "transcribe"
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
