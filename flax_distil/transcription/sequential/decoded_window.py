"""What was decoded of a window, and what of it is kept."""

import dataclasses

from flax_distil.transcription.generator import DecodingResult
from flax_distil.transcription.results import TranscribedSegment
from flax_distil.transcription.sequential.split_by_timestamps import WindowCut


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedWindow:
    """A window whose transcript is kept.

    Attributes:
        result: what was decoded.
        cut: where its timestamps cut it.
        segments: one for each of ``cut``.
        language: code.
        frames: of the window that belong to the recording.
        offset: seconds from the beginning of the recording to the window.
    """

    result: DecodingResult
    cut: WindowCut
    segments: tuple[TranscribedSegment, ...]
    language: str
    frames: int
    offset: float

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """Ids of text of all segments."""
        return tuple(token for segment in self.segments for token in segment.tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptSegment:
    """A segment of a transcript and all that was emitted for it.

    Attributes:
        segment: with its times in the recording.
        tokens: ids, timestamps included.
        token_logprobs: of each of them.
    """

    segment: TranscribedSegment
    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...]
