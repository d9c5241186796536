"""Where the timestamps of a window cut it, and where the next window begins."""

import dataclasses
from collections.abc import Sequence

from flax_distil.text.special_tokens import SpecialTokens

FRAMES_PER_SECOND = 100
FRAMES_PER_TIMESTAMP = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutSegment:
    """A segment of a window, in frames of 10 ms from its beginning, and which of its tokens are its own."""

    start: int
    end: int
    tokens: slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowCut:
    """What the timestamps of a window say.

    Attributes:
        segments: in order.
        advance: frames to the beginning of the next window.
        single_timestamp_ending: the window ends with a single timestamp: nothing is said behind it.
    """

    segments: tuple[CutSegment, ...]
    advance: int
    single_timestamp_ending: bool


def split_by_timestamps(tokens: Sequence[int], special: SpecialTokens, frames: int) -> WindowCut:
    """Cut the tokens of a window at pairs of timestamps, and say where the next window begins.

    After pairs, what stands behind the last is left to the next window, which begins there; unless
    it ends with one timestamp, and the next window follows this one. Without a pair all is one
    segment, up to the last timestamp or the end of the window.

    Args:
        tokens: emitted ids, timestamps included.
        special: the vocabulary.
        frames: of the window that belong to the recording.

    Source: openai/whisper, ``transcribe``.
    """
    is_timestamp = [special.is_timestamp(token) for token in tokens]

    def frame(index: int) -> int:
        return (tokens[index] - special.timestamp_begin) * FRAMES_PER_TIMESTAMP

    single_timestamp_ending = is_timestamp[-2:] == [False, True]
    stops = [
        index for index in range(1, len(tokens)) if is_timestamp[index - 1] and is_timestamp[index]
    ]  # fmt: skip
    if not stops:
        marks = [index for index, found in enumerate(is_timestamp) if found]
        end = (frame(marks[-1]) if marks else 0) or frames
        whole = CutSegment(start=0, end=end, tokens=slice(0, len(tokens)))
        return WindowCut(segments=(whole,), advance=frames, single_timestamp_ending=single_timestamp_ending)
    if single_timestamp_ending:
        stops.append(len(tokens))
    segments = tuple(
        CutSegment(start=frame(start), end=frame(stop - 1), tokens=slice(start, stop))
        for start, stop in zip([0, *stops], stops, strict=False)
    )
    return WindowCut(
        segments=segments,
        advance=frames if single_timestamp_ending else segments[-1].end,
        single_timestamp_ending=single_timestamp_ending,
    )
