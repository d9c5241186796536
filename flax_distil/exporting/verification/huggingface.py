"""Exports in transformers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip


def open_runtime(folder: Path) -> "HuggingFaceRuntime":
    """Load an export, whose weights are converted to float32."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype="float32")
    model.eval().requires_grad_(False)
    return HuggingFaceRuntime(model, WhisperProcessor.from_pretrained(folder))


@dataclasses.dataclass(frozen=True)
class HuggingFaceRuntime:
    """A ``WhisperForConditionalGeneration`` with its processor."""

    model: Any
    processor: Any

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        language = {} if clip.language is None else {"language": clip.language, "task": "transcribe"}
        sequences = self.model.generate(
            self._features(clip),
            return_timestamps=False,
            do_sample=False,
            num_beams=1,
            max_length=min(len(clip.prompt) + MAX_NEW_TOKENS, self.model.config.max_target_positions),
            **language,
        )
        text: str = self.processor.batch_decode(sequences, skip_special_tokens=True)[0]
        return text

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"]:
        """See ``Runtime``."""
        features = self._features(clip)
        ids = features.new_tensor([[*clip.prompt, *tokens]]).long()
        found = self.model(input_features=features, decoder_input_ids=ids).logits[0]
        return found[len(clip.prompt) - 1 :].float().numpy()

    def _features(self, clip: Clip) -> Any:
        found = self.processor(clip.samples_W, sampling_rate=16000, return_tensors="pt")
        return found.input_features
