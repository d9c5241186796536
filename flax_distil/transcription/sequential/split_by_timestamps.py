"""Where the timestamps of a window split it, and where the next window begins."""

from collections.abc import Sequence
from typing import NamedTuple

from flax_distil.text.special_tokens import SpecialTokens

FRAMES_PER_SECOND = 100
FRAMES_PER_TIMESTAMP = 2


class WindowSplit(NamedTuple):
    """What the timestamps of a window say.

    Attributes:
        spans: For each segment, its start and end in frames of 10 ms from the beginning of the window, and
            which of the window's tokens are its own.
        advance: Frames to the beginning of the next window.
        single_timestamp_ending: The window ends with a single timestamp: nothing is said behind it.
    """

    spans: list[tuple[int, int, slice]]
    advance: int
    single_timestamp_ending: bool


def split_by_timestamps(tokens: Sequence[int], special: SpecialTokens, frames: int) -> WindowSplit:
    """Split the tokens of a window at pairs of timestamps, and find where the next window begins.

    What follows the last pair is left to the next window, which begins there. If the window ends with one
    timestamp, the next window begins at its end instead. Without a pair all is one segment, up to the last
    timestamp or the end of the window.

    Args:
        tokens: Emitted ids, timestamps included.
        special: The vocabulary.
        frames: Number of frames of the window that belong to the recording.

    Source: ``transcribe`` of openai/whisper.
    """
    is_timestamp = [special.is_timestamp(token) for token in tokens]

    def frame(index: int) -> int:
        return (tokens[index] - special.timestamp_begin) * FRAMES_PER_TIMESTAMP

    single_ending = is_timestamp[-2:] == [False, True]
    stops = [index for index in range(1, len(tokens)) if is_timestamp[index - 1] and is_timestamp[index]]
    if not stops:
        marks = [index for index, found in enumerate(is_timestamp) if found]
        end = (frame(marks[-1]) if marks else 0) or frames
        return WindowSplit([(0, end, slice(0, len(tokens)))], frames, single_ending)
    if single_ending:
        stops.append(len(tokens))
    spans = [
        (frame(start), frame(stop - 1), slice(start, stop))
        for start, stop in zip([0, *stops], stops, strict=False)
    ]
    return WindowSplit(spans, frames if single_ending else spans[-1][1], single_ending)
