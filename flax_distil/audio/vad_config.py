"""Settings of voice activity detection."""

import dataclasses

from flax_distil.audio.voice_activity import VadOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """How speech is found in recordings.

    Attributes:
        vad: Leave out what is no speech: auto (also what the flag alone means), silero or energy; by default
            all is heard.
        vad_threshold: Probability that speech starts at; by default 0.5. For silero, as the next one.
        vad_neg_threshold: Probability below which speech ends; by default 0.15 less.
        vad_min_speech_duration_ms: Speech that is shorter is none.
        vad_max_speech_duration_s: Speech that lasts longer is cut at its longest pause; by default none is.
        vad_min_silence_duration_ms: A longer silence ends speech.
        vad_speech_pad_ms: So much before and behind speech is kept with it.
    """

    vad: str | None = dataclasses.field(default=None, metadata={"switch": "auto"})
    vad_threshold: float | None = None
    vad_neg_threshold: float | None = None
    vad_min_speech_duration_ms: float = float(VadOptions.min_speech_duration_ms)
    vad_max_speech_duration_s: float | None = None
    vad_min_silence_duration_ms: float = float(VadOptions.min_silence_duration_ms)
    vad_speech_pad_ms: float = float(VadOptions.speech_pad_ms)

    @property
    def vad_parameters(self) -> VadOptions:
        """What counts as speech."""
        return VadOptions(
            **{field.name: getattr(self, f"vad_{field.name}") for field in dataclasses.fields(VadOptions)}
        )
