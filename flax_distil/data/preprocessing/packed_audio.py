"""Concatenate recordings to one sample; each begins at a time that a timestamp token can express.

Every recording is padded to whole steps of the timestamp grid (0.02 s), so that what follows it
begins exactly on a timestamp::

    row a          row b             row c
    |---------|..|---------------|.|-------|..|
    0.00         4.36              11.82      15.40
"""

from collections.abc import Callable, Sequence

import numpy as np

from flax_distil.audio.constants import CHUNK_SAMPLES, CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core.arrays import Float
from flax_distil.data.decoded_example import (
    TOO_LONG,
    DecodedExample,
    DurationLimits,
    SampleError,
    TextPart,
    decode_row,
)
from flax_distil.data.example import Example
from flax_distil.data.remote.retries import RetryPolicy

STEPS_PER_SECOND = 50
"""Timestamps are 0.02 s apart."""

STEP_SAMPLES = SAMPLING_RATE // STEPS_PER_SECOND
"""320 samples from one timestamp to the next."""

MAX_STEPS = CHUNK_SAMPLES // STEP_SAMPLES
"""1500."""


def join_audio(
    parts: Sequence[Float[np.ndarray, " _"]],
) -> tuple[Float[np.ndarray, " W"], list[tuple[float, float]]]:
    """Concatenate recordings, each padded with silence to whole steps of 0.02 s.

    Args:
        parts: Mono, 16 kHz.

    Returns:
        float32 samples, a multiple of 320; and for each recording, where it begins and where the next one
        does, in seconds: exact multiples of 0.02.

    Raises:
        ValueError: If there are none, or they are longer than 30 s together.
    """
    ends = np.cumsum([steps_of(len(part)) for part in parts])
    if not len(ends) or ends[-1] > MAX_STEPS:
        raise ValueError(f"expected recordings of at most 30 s together, got {len(parts)} of other length")
    samples_W = np.zeros(ends[-1] * STEP_SAMPLES, np.float32)
    starts = [0, *ends[:-1].tolist()]
    for part, start in zip(parts, starts, strict=True):
        samples_W[start * STEP_SAMPLES :][: len(part)] = part
    bounds = [
        (start / STEPS_PER_SECOND, end / STEPS_PER_SECOND)
        for start, end in zip(starts, ends.tolist(), strict=True)
    ]
    return samples_W, bounds


def steps_of(samples: int) -> int:
    """Return the steps of 0.02 s that hold this many samples."""
    return -(-samples // STEP_SAMPLES)


def decode_pack(
    rows: Sequence[Example],
    limits: DurationLimits,
    reject: Callable[[Example, SampleError], None],
    *,
    policy: RetryPolicy | None = None,
    window_seconds: float = float(CHUNK_SECONDS),
) -> DecodedExample | None:
    """Decode and join a pack.

    Where a recording is unusable, or longer than its stated duration, so that it does not fit, the others
    are joined without it.

    Args:
        rows: The rows of a pack in order, with audio.
        limits: Which recordings are taken.
        reject: Told each row that is left out, and why.
        policy: How failed requests are repeated; by default the policy of the rows.
        window_seconds: How long they may be together.

    Returns:
        One example with the names of the first row, or None if no recording is left. Its reference is all
        references with spaces between; its label comes in parts, for :meth:`LabelBuilder.build_joined`.
    """
    taken: list[tuple[Example, Float[np.ndarray, " _"]]] = []
    steps = 0
    for row in rows:
        try:
            samples_W = decode_row(row, limits, policy=policy).samples_W
            assert samples_W is not None
            after = steps + steps_of(len(samples_W))
            if after > window_seconds * STEPS_PER_SECOND:
                raise SampleError(
                    TOO_LONG,
                    f"{len(samples_W) / SAMPLING_RATE:.2f} s of audio, told as {row.duration_seconds:.2f} s: "
                    f"too long to be joined with {steps / STEPS_PER_SECOND:.2f} s of other recordings",
                )
        except SampleError as error:
            reject(row, error)
            continue
        steps = after
        taken.append((row, samples_W))
    return _join(taken) if taken else None


def _join(taken: Sequence[tuple[Example, Float[np.ndarray, " _"]]]) -> DecodedExample:
    joined_W, bounds = join_audio([samples_W for _, samples_W in taken])
    rows = [row for row, _ in taken]
    references = [row.reference for row in rows]
    return DecodedExample(
        index=rows[0].index,
        sample_id=rows[0].sample_id,
        samples_W=joined_W,
        duration_seconds=len(joined_W) / SAMPLING_RATE,
        reference=None if None in references else " ".join(text for text in references if text),
        label=None,
        parts=tuple(
            TextPart(text=row.label, start=start, end=end)
            for row, (start, end) in zip(rows, bounds, strict=True)
        ),
    )
