"""Errors for recordings that cannot be decoded; each message names the recording and a remedy."""

from pathlib import Path

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError

LOUDEST = 16.0
"""Floating-point files may exceed full scale (1.0) a little; far beyond it they hold unscaled integers."""

NO_FILE = "whose audio file cannot be opened"
EMPTY = "with empty audio"
UNREADABLE = "with unreadable audio"
BAD_VALUES = "with impossible sample values"
TOO_LONG = "too long"
NO_CHANNEL = "without the channel that is asked for"


class AudioError(InputError):
    """A recording that gives no usable samples; the message names it and the reason.

    Args:
        kind: A few words to count by, one of the constants of this file.
        message: The message, in one sentence.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class LongAudioError(AudioError):
    """A recording that was refused for its length.

    Args:
        name: What to call the recording.
        length: Length of the recording as far as it is known, such as ``"10800.00 s"``.
        max_seconds: Longest allowed.
    """

    def __init__(self, name: str, length: str, max_seconds: float):
        super().__init__(
            TOO_LONG, f"cannot use {name}: it lasts {length}, and at most {max_seconds:g} s are taken; cut it"
        )
        self.length = length


def check_values(block: Float[np.ndarray, "_ _"], name: str) -> None:
    """Raise ``AudioError`` for samples that no recording has: NaN, infinite, or unscaled integers."""
    if not np.isfinite(block).all():
        raise AudioError(
            BAD_VALUES, f"cannot use {name}: it holds NaN or infinite samples; make it again from its source"
        )
    peak = float(np.abs(block).max(initial=0.0))
    if peak > LOUDEST:
        raise AudioError(
            BAD_VALUES,
            f"cannot use {name}: its floating-point samples reach {peak:g} where full scale is 1;"
            " divide them by the range of the integers they came from",
        )


def unreadable(name: str, reason: str) -> AudioError:
    """Return the error for a recording that no reader can read."""
    return AudioError(UNREADABLE, f"cannot read {name}: {reason}; convert it to WAV or FLAC, or leave it out")


def no_file(path: Path, reason: str) -> AudioError:
    """Return the error for a file that cannot be opened."""
    return AudioError(NO_FILE, f"cannot read audio file '{path}': {reason}")


def no_text(name: str) -> AudioError:
    """Return the error for a text file, which may be a playlist: files that it names are never opened."""
    return AudioError(
        UNREADABLE,
        f"cannot read {name}: it is text, not audio; if it is a playlist, give the recordings that it lists",
    )


def no_channel(name: str, channel: int, channels: int) -> AudioError:
    """Return the error for a channel that a recording does not have."""
    return AudioError(
        NO_CHANNEL,
        f"cannot take channel {channel} of {name}: it has {channels}, and they are counted from 0",
    )


def no_samples(name: str) -> AudioError:
    """Return the error for a recording of length 0."""
    return AudioError(EMPTY, f"cannot use {name}: it holds no samples; leave it out")
