"""Exports in mlx-whisper."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip


def open_runtime(folder: Path) -> "MlxRuntime":
    """Load an export; what is not quantized is computed in float32."""
    import mlx.core as mx
    from mlx_whisper.load_models import load_model

    return MlxRuntime(load_model(str(folder), dtype=mx.float32))


@dataclasses.dataclass(frozen=True, eq=False)
class MlxRuntime:
    """A ``Whisper`` of mlx-whisper, and the encoder output of the clips it was given."""

    model: Any
    encoded: dict[str, Any] = dataclasses.field(default_factory=dict)

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        from mlx_whisper.decoding import DecodingOptions

        options = DecodingOptions(
            language=clip.language or "en", without_timestamps=True, sample_len=MAX_NEW_TOKENS, fp16=False
        )
        text: str = self.model.decode(self._encoder_out(clip), options)[0].text
        return text

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"]:
        """See ``Runtime``."""
        import mlx.core as mx

        ids = mx.array([[*clip.prompt, *tokens]])
        found = self.model.logits(ids, self._encoder_out(clip))[0].astype(mx.float32)
        return np.array(found)[len(clip.prompt) - 1 :]

    def _encoder_out(self, clip: Clip) -> Any:
        if clip.name not in self.encoded:  # encoding is what takes long
            self.encoded[clip.name] = self._encode(clip)
        return self.encoded[clip.name]

    def _encode(self, clip: Clip) -> Any:
        import mlx.core as mx
        from mlx_whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

        mel = log_mel_spectrogram(clip.samples_W, n_mels=self.model.dims.n_mels, padding=N_SAMPLES)
        mel = pad_or_trim(mel, N_FRAMES, axis=-2).astype(mx.float32)
        return self.model.embed_audio(mel[None])
