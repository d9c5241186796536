"""Exports in faster-whisper, which runs them with CTranslate2."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.core.arrays import Float
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip

_SUPPRESSED = np.finfo(np.float32).min / 2


def open_runtime(folder: Path) -> "FasterWhisperRuntime":
    """Load an export on the CPU, in the types in which it was written."""
    from faster_whisper import WhisperModel

    return FasterWhisperRuntime(WhisperModel(str(folder), device="cpu", compute_type="default"))


@dataclasses.dataclass(frozen=True)
class FasterWhisperRuntime:
    """A ``WhisperModel`` of faster-whisper.

    It is given recordings with silence up to the end of the window. Of a shorter one it would fill the
    features with zeros, where those of silence, with which Whisper was trained, are lower; a student that was
    trained little hears the difference. That is the program's choice, not the export's.
    """

    model: Any

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        segments, _ = self.model.transcribe(
            pad_or_trim(clip.samples_W),
            language=clip.language or "en",
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            # CTranslate2 emits at most half of its limit, which faster-whisper makes of this and the prompt.
            max_new_tokens=2 * MAX_NEW_TOKENS - len(clip.prompt),
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        return "".join(segment.text for segment in segments)

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"] | None:
        """See ``Runtime``; rows end where its own transcript leaves ours."""
        extractor = self.model.feature_extractor
        features = extractor(pad_or_trim(clip.samples_W))[:, : extractor.nb_max_frames]
        result = self.model.model.generate(
            self.model.encode(features),
            [list(clip.prompt)],
            beam_size=1,
            max_length=len(clip.prompt) + 2 * (len(tokens) + 1),  # half of it is emitted
            return_logits_vocab=True,
        )[0]
        theirs = result.sequences_ids[0]
        same = 0
        while same < min(len(theirs), len(tokens)) and theirs[same] == tokens[same]:
            same += 1
        rows = [np.asarray(row, np.float32) for row in result.logits[0][: same + 1]]
        # Suppressed tokens have the lowest number of float32.
        return np.where(np.stack(rows) < _SUPPRESSED, -np.inf, np.stack(rows)) if rows else None
