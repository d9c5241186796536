"""Recordings of any kind that a program may hand over: paths, addresses, bytes, arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

from flax_distil.audio import SAMPLING_RATE, decode_audio, raw_format
from flax_distil.core import Float, InputError, user_path
from flax_distil.data.reading.remote import is_remote, read_bytes
from flax_distil.data.reading.retries import RetryPolicy

MOST_CHANNELS = 2
"""An array of more rows is taken for one whose axes are swapped."""

RETRY_SECONDS = 60.0
"""How long a server that does not answer is asked again."""


class ReadRecording(NamedTuple):
    """A recording, or why it cannot be read.

    Attributes:
        name: what it is called.
        samples: 16 kHz, float32; empty if it cannot be read.
        error: one sentence; None if it was read.
        channels: how many channels lie one behind the other in ``samples``; 0 where they were mixed.
    """

    name: Any
    samples: Float[np.ndarray, " W"]
    error: InputError | None
    channels: int = 0


def read_audio(given: Any, *, retry_seconds: float = RETRY_SECONDS) -> Float[np.ndarray, " W"]:
    """Return 16 kHz mono samples of a recording; where it is damaged there is silence, with a warning.

    Args:
        given: a path; an address (``http(s)://``, ``gs://``, ``s3://``, ``hf://``); the contents of a file;
            an array of 16 kHz samples; or a dictionary of "array" (or "raw") and "sampling_rate", or of
            "bytes" and "path", as ``datasets`` gives them. Arrays are floating-point, ``[samples]`` or
            ``[channels, samples]``.
        retry_seconds: how long a server that does not answer is asked again.

    Raises:
        InputError: if it cannot be read, or is none of these.
    """
    if isinstance(given, Mapping):
        given, rate = _of_dictionary(given)
        if rate is not None:
            return _of_array(given, rate)
    if isinstance(given, bytes | bytearray | memoryview):
        return decode_audio(bytes(given), replace_damage=True)
    if isinstance(given, Path) or (isinstance(given, str) and not is_remote(given)):
        return decode_audio(user_path(given), replace_damage=True)
    if isinstance(given, str):
        policy = RetryPolicy(total_seconds=retry_seconds)
        data = read_bytes(given, policy)
        return decode_audio(data, format=raw_format(given.partition("?")[0]), replace_damage=True)
    if hasattr(given, "__array__"):
        return _of_array(given, SAMPLING_RATE)
    raise InputError(
        f"a recording is given as {type(given).__name__}: expected a path, an address, bytes, an array of "
        "16 kHz samples, or a dictionary of array and sampling_rate"
    )


def _of_dictionary(given: Mapping[str, Any]) -> tuple[Any, int | None]:
    """Return an array and its rate, or bytes or a path and None."""
    array = given["raw"] if given.get("raw") is not None else given.get("array")
    if array is not None and given.get("sampling_rate") is not None:
        return array, int(given["sampling_rate"])
    if array is None and given.get("bytes") is not None:
        return given["bytes"], None
    if array is None and given.get("path") is not None:
        return given["path"], None
    raise InputError(
        f"a recording is given as a dictionary of {', '.join(map(str, given)) or 'nothing'}: expected array "
        "(or raw) and sampling_rate, or bytes or path"
    )


def _of_array(given: Any, rate: int) -> Float[np.ndarray, " W"]:
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[0] <= MOST_CHANNELS:
        array = array.mean(axis=0)
    if array.ndim != 1:
        raise InputError(
            f"an array of shape {array.shape} is no recording: expected [samples], or [channels, samples] "
            f"of at most {MOST_CHANNELS} channels"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"an array of {array.dtype} is no recording: expected floating-point samples in [-1, 1]; divide "
            "whole numbers by their range"
        )
    if not len(array):
        raise InputError("an array holds no samples: leave it out")
    if not np.isfinite(array).all():
        raise InputError("an array holds NaN or infinite samples: make it again from its source")
    if rate < 1:
        raise InputError(f"sampling_rate {rate} is below 1")
    samples_W = array.astype(np.float32)
    if rate != SAMPLING_RATE:
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    return samples_W
