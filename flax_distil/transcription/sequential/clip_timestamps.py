"""Which stretches of a recording are transcribed, and where windows begin in them."""

from collections.abc import Sequence
from typing import NamedTuple

from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND


class Clip(NamedTuple):
    """A stretch of a recording, in frames of 10 ms."""

    start: int
    end: int


def seek_clips(timestamps: Sequence[float], frames: int) -> list[Clip]:
    """Return the clips of a recording, in order.

    Args:
        timestamps: Start, end, start, end … in seconds; the last end may be left out, and is then that of the
            recording. Without any the recording is one clip.
        frames: Number of frames of the recording; no clip reaches beyond it.

    Source: ``transcribe`` of openai/whisper.
    """
    points = [round(seconds * FRAMES_PER_SECOND) for seconds in timestamps] or [0]
    if len(points) % 2:
        points.append(frames)
    clips = [Clip(start, min(end, frames)) for start, end in zip(points[::2], points[1::2], strict=True)]
    return [clip for clip in clips if clip.start < clip.end]
