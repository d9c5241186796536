"""Settings of the evaluation without speech."""

import dataclasses

from flax_distil.core.checks import check_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonSpeechSetConfig:
    """Evaluation without speech.

    Attributes:
        non_speech: Also transcribe clips in which nobody speaks (digital silence, noise, hum, clicks, music
            and a murmuring crowd), without and with thresholds, and report how often text is invented.
        non_speech_samples: Number of these clips; all kinds have equal parts of them.

    Raises:
        InputError: If there are no clips.
    """

    non_speech: bool = False
    non_speech_samples: int = 80

    def __post_init__(self) -> None:
        check_positive(self, "non_speech_samples")
