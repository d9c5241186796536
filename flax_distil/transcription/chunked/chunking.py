"""Where the chunks of a long recording lie."""

from typing import NamedTuple

import numpy as np

from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float

PAUSE_FRAMES = 30
"""Length of the pause between words that is looked for, in frames of 10 ms."""


class Chunk(NamedTuple):
    """Where a chunk lies, in samples.

    Attributes:
        start: First sample of the chunk in the recording.
        stop: Sample behind the last one.
        stride_left: Samples it shares with the chunk before it; 0 for the first chunk.
        stride_right: Samples it shares with the next one; 0 for the last chunk.
    """

    start: int
    stop: int
    stride_left: int
    stride_right: int


def cut_chunks(samples: int, chunk: int, stride_left: int, stride_right: int) -> list[Chunk]:
    """Cut a recording into chunks; the first chunk that reaches its end is the last.

    Args:
        samples: Number of samples of the recording.
        chunk: Samples per chunk.
        stride_left: Samples shared with the chunk before.
        stride_right: Samples shared with the next; with ``stride_left`` less than ``chunk``.

    Source: ``chunk_iter`` of the speech recognition pipeline of transformers.
    """
    chunks: list[Chunk] = []
    for start in range(0, max(samples, 1), chunk - stride_left - stride_right):
        stop = min(start + chunk, samples)
        last = stop == samples
        chunks.append(Chunk(start, stop, stride_left if start else 0, 0 if last else stride_right))
        if last:
            break
    return chunks


def cut_at_pauses(
    loudness_R: Float[np.ndarray, " R"], chunk: int, stride_left: int, stride_right: int
) -> list[Chunk]:
    """Cut a recording where it is quiet, since a chunk that begins within a word is transcribed badly.

    Chunks begin up to half of the shorter stride before or behind where those of ``cut_chunks`` would, at the
    least loud moment; the first that reaches the end is the last.

    Args:
        loudness_R: Loudness of every frame of 10 ms.
        chunk: Samples per chunk.
        stride_left: Samples shared with the chunk before, where it is not moved.
        stride_right: Samples shared with the next; with ``stride_left`` less than ``chunk``.
    """
    length, left, right = (samples // HOP_LENGTH for samples in (chunk, stride_left, stride_right))
    frames, reach = len(loudness_R), min(left, right) // 2
    starts = [0]
    while starts[-1] + length < frames:
        wanted = starts[-1] + max(1, length - left - right)
        starts.append(_quietest(loudness_R, wanted, reach))
    stops = [min(start + length, frames) for start in starts]
    overlaps = [stop - start for stop, start in zip(stops, starts[1:], strict=False)]
    shares = [overlap * left // (left + right) if overlap > 0 else 0 for overlap in overlaps]
    return [
        Chunk(start * HOP_LENGTH, stop * HOP_LENGTH, own * HOP_LENGTH, (overlap - share) * HOP_LENGTH)
        for start, stop, own, overlap, share in zip(
            starts, stops, [0, *shares], [*overlaps, 0], [*shares, 0], strict=True
        )
    ]


def _quietest(loudness_R: Float[np.ndarray, " R"], wanted: int, reach: int) -> int:
    """Return the middle of the least loud moment around a frame, the nearest of several."""
    first, stop = max(0, wanted - reach), min(len(loudness_R), wanted + reach + 1)
    half = min(PAUSE_FRAMES // 2, reach)
    if not half or stop - first <= 2 * half:
        return wanted
    mean_R = np.convolve(loudness_R[first:stop], np.full(2 * half, 1 / (2 * half)), mode="valid")
    middles_R = first + half + np.arange(len(mean_R))
    order_R = np.lexsort((np.abs(middles_R - wanted), mean_R.round(1)))
    return int(middles_R[order_R[0]])
