"""A window whose transcript is kept."""

import dataclasses

from flax_distil.transcription.results import TranscribedSegment


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedWindow:
    """A window whose transcript is kept.

    Attributes:
        segments: The transcript, split at its timestamps.
        advance: Frames of 10 ms from its beginning to that of the next window.
        single_timestamp_ending: It ends with a single timestamp: nothing is said behind it.
        language: Code of its language.
        frames: Number of its frames that belong to the recording.
        offset: Seconds from the beginning of the recording to the window.
    """

    segments: tuple[TranscribedSegment, ...]
    advance: int
    single_timestamp_ending: bool
    language: str
    frames: int
    offset: float

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """Ids of text of all segments."""
        return tuple(token for segment in self.segments for token in segment.tokens)
