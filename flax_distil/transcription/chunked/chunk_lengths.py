"""How long chunks are, and how much neighbors share."""

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core.errors import InputError


def chunk_samples(
    chunk_length_s: float | None,
    stride_length_s: float | tuple[float, float] | None,
    *,
    longest: float = float(CHUNK_SECONDS),
) -> tuple[int, int, int]:
    """Return samples per chunk, and how many it shares with the one before and with the next one.

    Args:
        chunk_length_s: Seconds of a chunk; by default ``longest``.
        stride_length_s: Seconds shared on each side, or on the left and on the right.
        longest: Seconds that the model hears at once.

    Raises:
        InputError: If a length is out of range.
    """
    length = longest if chunk_length_s is None else chunk_length_s
    if not 0 < length <= longest:
        raise InputError(f"chunk_length_s {length:g} is not above 0 and at most {longest:g}")
    stride = length / 6 if stride_length_s is None else stride_length_s
    left, right = stride if isinstance(stride, tuple) else (stride, stride)
    if min(left, right) < 0 or not left + right < length:
        raise InputError(
            f"stride_length_s {left:g} and {right:g} do not fit chunk_length_s {length:g}: "
            "give strides of at least 0 that are shorter together than a chunk"
        )
    chunk, left, right = (round(seconds * SAMPLING_RATE) for seconds in (length, left, right))
    return chunk, left, right
