"""Where the chunks of a long recording lie."""

from typing import NamedTuple

from flax_distil.audio import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core import InputError


class Chunk(NamedTuple):
    """Where a chunk lies, in samples.

    Attributes:
        start: of the recording.
        stop: likewise.
        stride_left: what it shares with the chunk before it; 0 for the first.
        stride_right: what it shares with the next one; 0 for the last.
    """

    start: int
    stop: int
    stride_left: int
    stride_right: int


def cut_chunks(samples: int, chunk: int, stride_left: int, stride_right: int) -> list[Chunk]:
    """Cut a recording; the first chunk that reaches its end is the last.

    Args:
        samples: of the recording.
        chunk: samples per chunk.
        stride_left: samples shared with the chunk before.
        stride_right: samples shared with the next; with ``stride_left`` less than ``chunk``.

    Source: RECIPE 6 and 8.8.
    """
    chunks: list[Chunk] = []
    for start in range(0, max(samples, 1), chunk - stride_left - stride_right):
        stop = min(start + chunk, samples)
        last = stop == samples
        chunks.append(Chunk(start, stop, stride_left if start else 0, 0 if last else stride_right))
        if last:
            break
    return chunks


def chunk_samples(
    chunk_length_s: float | None, stride_length_s: float | tuple[float, float] | None
) -> tuple[int, int, int]:
    """Return samples per chunk, and what it shares with the one before and the next; see the class.

    Raises:
        InputError: if a length is out of range.
    """
    length = CHUNK_SECONDS if chunk_length_s is None else chunk_length_s
    if not 0 < length <= CHUNK_SECONDS:
        raise InputError(f"chunk_length_s {length:g} is not above 0 and at most {CHUNK_SECONDS}")
    stride = length / 6 if stride_length_s is None else stride_length_s
    left, right = stride if isinstance(stride, tuple) else (stride, stride)
    if min(left, right) < 0 or not left + right < length:
        raise InputError(
            f"stride_length_s {left:g} and {right:g} do not fit chunk_length_s {length:g}: "
            "give strides of at least 0 that are shorter together than a chunk"
        )
    chunk, left, right = (round(seconds * SAMPLING_RATE) for seconds in (length, left, right))
    return chunk, left, right
