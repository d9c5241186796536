"""Concatenate recordings into one sample; each begins at a time that a timestamp token can express.

Every recording is padded to whole steps of 0.02 s, so that the next one begins exactly on a timestamp::

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
from flax_distil.storage.retries import RetryPolicy

STEPS_PER_SECOND = 50
"""Number of timestamps per second, which are 0.02 s apart."""

STEP_SAMPLES = SAMPLING_RATE // STEPS_PER_SECOND
"""Number of audio samples from one timestamp to the next: 320."""

MAX_STEPS = CHUNK_SAMPLES // STEP_SAMPLES
"""Number of timestamp steps of a window of 30 s: 1500."""


def join_audio(
    parts: Sequence[Float[np.ndarray, " _"]],
) -> tuple[Float[np.ndarray, " W"], list[tuple[float, float]]]:
    """Concatenate recordings, each padded with silence to whole steps of 0.02 s.

    Args:
        parts: Recordings, mono at 16 kHz.

    Returns:
        Audio samples as float32, whose number is a multiple of 320; and for each recording its start and the
        start of the next one in seconds, which are exact multiples of 0.02.

    Raises:
        ValueError: If there are no recordings, or they are longer than 30 s together.
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
    """Return the number of steps of 0.02 s that hold this many audio samples."""
    return -(-samples // STEP_SAMPLES)


def decode_pack(
    rows: Sequence[Example],
    limits: DurationLimits,
    reject: Callable[[Example, SampleError], None],
    *,
    policy: RetryPolicy | None = None,
    window_seconds: float = float(CHUNK_SECONDS),
) -> DecodedExample | None:
    """Decode and join the rows of a pack.

    A recording that is unusable, or that does not fit because it is longer than its stated duration, is left
    out.

    Args:
        rows: The rows of a pack in order, with audio.
        limits: Limits of the duration of recordings.
        reject: Function that is called for each row that is left out, with the reason.
        policy: Policy for repeating failed requests; by default the policy of the rows.
        window_seconds: Maximum length of all recordings together.

    Returns:
        One example with the name of the first row; None if no recording is left. Its reference consists of
        all references, separated by spaces; its label has parts, for :meth:`LabelBuilder.build_joined`.
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
                    f"{len(samples_W) / SAMPLING_RATE:.2f} s of audio, stated as "
                    f"{row.duration_seconds:.2f} s: too long to be joined with "
                    f"{steps / STEPS_PER_SECOND:.2f} s of other recordings",
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
