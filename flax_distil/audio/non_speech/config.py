"""Settings of clips without speech among the training samples."""

import dataclasses

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonSpeechConfig:
    """Training without speech.

    Everything is off by default.

    Attributes:
        non_speech_probability: Probability that a training sample is replaced by a clip in which nobody
            speaks (digital silence, noise, hum, clicks, music or a murmuring crowd), with no text as its
            label. The teacher takes no part in the loss of these clips, since it invents
            text there, and the student may end a transcript without a word.
        non_speech_padding_probability: Probability that a training sample gets such a sound, fainter than its
            speech, before and behind it; timestamps move with the speech.
        non_speech_clips: Number of different clips. With cache_encoder_states, the encoder outputs of as many
            clips are kept in addition to those of the samples.

    Raises:
        InputError: If a value is out of range.
    """

    non_speech_probability: float = 0.0
    non_speech_padding_probability: float = 0.0
    non_speech_clips: int = 4096

    def __post_init__(self) -> None:
        check_positive(self, "non_speech_clips")
        for name in ("non_speech_probability", "non_speech_padding_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name):g}")
        if self.non_speech_probability == 1.0:
            raise InputError(
                "non_speech_probability 1 leaves no speech to learn: choose a number below 1, such as 0.1"
            )

    @property
    def replaces_samples(self) -> bool:
        """Whether some samples are clips without speech."""
        return self.non_speech_probability > 0.0
