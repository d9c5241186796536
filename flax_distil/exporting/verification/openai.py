"""Exports in openai-whisper."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.exporting.formats.openai import FILE_NAME
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip


def open_runtime(folder: Path) -> "OpenAIRuntime":
    """Load an export, whose weights are converted to float32."""
    import whisper

    model = whisper.load_model(str(folder / FILE_NAME), device="cpu")
    return OpenAIRuntime(model.requires_grad_(False))


@dataclasses.dataclass(frozen=True, eq=False)
class OpenAIRuntime:
    """A ``Whisper`` of openai-whisper, and the encoder output of the clips it was given."""

    model: Any
    encoded: dict[str, Any] = dataclasses.field(default_factory=dict)

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        from whisper import DecodingOptions

        options = DecodingOptions(
            language=clip.language or "en", without_timestamps=True, sample_len=MAX_NEW_TOKENS, fp16=False
        )
        text: str = self.model.decode(self._encoder_out(clip), options)[0].text
        return text

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"]:
        """See ``Runtime``."""
        encoder_out = self._encoder_out(clip)
        ids = encoder_out.new_tensor([[*clip.prompt, *tokens]]).long()
        found = self.model.logits(ids, encoder_out)[0]
        return found[len(clip.prompt) - 1 :].float().numpy()

    def _encoder_out(self, clip: Clip) -> Any:
        from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

        if clip.name not in self.encoded:  # encoding is what takes long
            self.encoded.clear()
            mel_MR = log_mel_spectrogram(
                pad_or_trim(clip.samples_W, N_SAMPLES), n_mels=self.model.dims.n_mels
            )
            self.encoded[clip.name] = self.model.embed_audio(mel_MR[None])
        return self.encoded[clip.name]
