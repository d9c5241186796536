"""Recordings of any kind that a program may hand over: paths, addresses, bytes, arrays."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.channels import Downmix
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.reading.errors import EMPTY, AudioError
from flax_distil.audio.reading.sources import raw_format
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.fields import shown
from flax_distil.core.paths import user_path
from flax_distil.data.remote.files import is_remote, read_bytes
from flax_distil.data.remote.retries import RetryPolicy

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

    A recording without samples has none here.

    Args:
        given: a path; an address (``http(s)://``, ``gs://``, ``s3://``, ``hf://``); the contents of a file;
            an array of 16 kHz samples; a dictionary of "array" (or "raw") and "sampling_rate", or of
            "bytes" and "path"; or a decoder of ``datasets`` or torchcodec. Arrays are floating-point, of one
            channel.
        retry_seconds: how long a server that does not answer is asked again.

    Raises:
        InputError: if it cannot be read, or is none of these.
    """
    with one_sentence(given):
        return _read(given, retry_seconds)


@contextlib.contextmanager
def one_sentence(given: Any) -> Iterator[None]:
    """Turn whatever is raised while a recording is read into ``InputError``."""
    try:
        yield
    except InputError:
        raise
    # Of a name that nothing can have, or of an object that belongs to another library.
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        named = shown(str(given)) if isinstance(given, str | Path) else f"of type {type(given).__name__}"
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"recording {named} cannot be read: {reason}") from error


def _read(given: Any, retry_seconds: float) -> Float[np.ndarray, " W"]:
    if isinstance(given, Mapping):
        given, rate = _of_dictionary(given)
        if rate is not None:
            return _of_array(given, rate)
    if isinstance(given, bytes | bytearray | memoryview):
        return _decoded(bytes(given))
    if isinstance(given, Path) or (isinstance(given, str) and not is_remote(given)):
        path = user_path(given)
        # libsndfile and FFmpeg take no names that are not UTF-8, such as those of a Latin-1 system.
        return _decoded(path) if is_utf8(str(path)) else _decoded(path.read_bytes(), raw_format(path))
    if isinstance(given, str):
        policy = RetryPolicy(total_seconds=retry_seconds)
        return _decoded(read_bytes(given, policy), raw_format(given.partition("?")[0]))
    if hasattr(given, "get_all_samples"):
        return _of_decoder(given)
    if hasattr(given, "__array__"):
        return _of_array(given, SAMPLING_RATE)
    raise InputError(
        f"a recording is given as {type(given).__name__}: expected a path, an address, bytes, an array of "
        "16 kHz samples, or a dictionary of array and sampling_rate"
    )


def is_utf8(text: str) -> bool:
    """Return whether a name can be written as UTF-8: not so where it holds other bytes, as names may."""
    return text.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in text)


def _decoded(source: Path | bytes, format: str | None = None) -> Float[np.ndarray, " W"]:
    try:
        return decode_audio(source, format=format, replace_damage=True)
    except AudioError as error:
        # Without samples there is nothing said; without a byte there is no recording.
        if error.kind != EMPTY or not (len(source) if isinstance(source, bytes) else source.stat().st_size):
            raise
        return np.zeros(0, np.float32)


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


def _of_decoder(given: Any) -> Float[np.ndarray, " W"]:
    """Read all of a decoder of torchcodec, which ``datasets`` gives from its version 4 on."""
    samples = given.get_all_samples()
    samples_CW = np.atleast_2d(np.asarray(samples.data))
    return _of_array(Downmix()(samples_CW.T), int(samples.sample_rate))


def _of_array(given: Any, rate: int) -> Float[np.ndarray, " W"]:
    array = np.asarray(given)
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise InputError(
            f"an array of shape {array.shape} is no recording: expected one of [samples]; of several "
            "channels give one, or their mean"
        )
    if not np.issubdtype(array.dtype, np.floating) and len(array):
        raise InputError(
            f"an array of {array.dtype} is no recording: expected floating-point samples in [-1, 1]; divide "
            "whole numbers by their range"
        )
    if not np.isfinite(array).all():
        raise InputError("an array holds NaN or infinite samples: make it again from its source")
    if rate < 1:
        raise InputError(f"sampling_rate {rate} is below 1")
    samples_W = array.astype(np.float32)
    if rate != SAMPLING_RATE and len(samples_W):
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    return samples_W
