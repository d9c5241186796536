"""Settings of voice activity detection."""

from dataclasses import dataclass
from typing import Literal

from flax_distil.core.errors import InputError

VadName = Literal["auto", "silero", "energy"]
"""``auto`` is Silero where it is installed."""

THRESHOLD = 0.5
"""Probability that speech starts at: the default of Silero's own tools."""

BELOW_THRESHOLD, LEAST_NEG_THRESHOLD = 0.15, 0.01
"""It falls silent so much below that, but not below the least: their defaults too."""


@dataclass(frozen=True, kw_only=True)
class VadOptions:
    """Voice activity detection.

    The names are those of faster-whisper's ``vad_parameters``.

    Attributes:
        threshold: Probability of speech at which speech starts. By default 0.5. Only silero has
            probabilities.
        neg_threshold: Probability of speech below which speech ends. By default 0.15 less than the threshold.
        min_speech_duration_ms: Leave out speech that is shorter than this.
        max_speech_duration_s: Cut speech that is longer than this at its longest pause. By default it is not
            cut.
        min_silence_duration_ms: Speech ends at a silence that is longer than this.
        speech_pad_ms: Milliseconds that are kept before and after speech.

    Raises:
        InputError: If a value is out of range.
    """

    threshold: float | None = None
    neg_threshold: float | None = None
    min_speech_duration_ms: int | float = 96.0
    max_speech_duration_s: int | float | None = None
    min_silence_duration_ms: int | float = 2000.0
    speech_pad_ms: int | float = 400.0

    def __post_init__(self) -> None:
        for name in ("threshold", "neg_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name} {value:g} of voice activity is not between 0 and 1")
        if self.ends > self.starts:
            raise InputError(
                f"neg_threshold {self.ends:g} of voice activity is above threshold {self.starts:g}: speech "
                "would never begin"
            )
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name):g} is not a number of at least 0")
        if self.max_speech_duration_s is not None and not self.max_speech_duration_s >= 1:
            raise InputError(f"max_speech_duration_s {self.max_speech_duration_s:g} is below 1")

    @property
    def starts(self) -> float:
        """The probability that speech starts at."""
        return THRESHOLD if self.threshold is None else self.threshold

    @property
    def ends(self) -> float:
        """The probability below which it ends."""
        if self.neg_threshold is not None:
            return self.neg_threshold
        return max(self.starts - BELOW_THRESHOLD, LEAST_NEG_THRESHOLD)


DEFAULT_VAD = VadOptions()
