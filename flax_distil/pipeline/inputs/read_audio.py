"""Recordings of any kind that a program may hand over, read into samples: paths, addresses, bytes, arrays."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.channels import Downmix
from flax_distil.audio.reading.decoding import decode_audio, decode_channels
from flax_distil.audio.reading.encoded import Encoded
from flax_distil.audio.reading.errors import EMPTY, AudioError
from flax_distil.audio.reading.sources import raw_format
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.fields import short_repr
from flax_distil.core.files import user_path
from flax_distil.pipeline.config import MEAN_OF_CHANNELS, RETRY_SECONDS, ChannelChoice
from flax_distil.storage.remote_files import is_remote, read_bytes
from flax_distil.storage.retries import RetryPolicy

MAX_CHANNELS = 64
"""An array with more rows is taken for one whose axes are swapped."""


class _Array(NamedTuple):
    samples: np.ndarray
    rate: int
    has_channels: bool = False  # axes [channels, samples]; otherwise they are told by their use


class _File(NamedTuple):
    source: Path | bytes
    format: str | None = None  # FFmpeg's name, where the file has no header


def read_audio(given: Any, *, retry_seconds: float = RETRY_SECONDS) -> Float[np.ndarray, " W"]:
    """Return the samples of a recording, mono at 16 kHz; damage becomes silence, with a warning.

    A recording without samples gives an empty array.

    Args:
        given: A path; an address (``http(s)://``, ``gs://``, ``s3://``, ``hf://``); the contents of a file;
            an array of 16 kHz samples; a dictionary of "array" (or "raw") and "sampling_rate", or of
            "bytes" and "path"; or a decoder of ``datasets`` or torchcodec. Arrays are floating-point, of one
            channel.
        retry_seconds: How long a server that does not answer is asked again.

    Raises:
        InputError: If the recording cannot be read, or is none of these.
    """
    return read_channels(given, MEAN_OF_CHANNELS, retry_seconds=retry_seconds)[0]


def read_channels(
    given: Any, channels: ChannelChoice, *, retry_seconds: float = RETRY_SECONDS
) -> Float[np.ndarray, "C W"]:
    """Return the chosen channels of a recording, at 16 kHz; arguments and errors as of ``read_audio``."""
    with _one_sentence(given):
        opened = _open(given, retry_seconds)
        if isinstance(opened, _File):
            return _decode(opened, channels)
        if channels == MEAN_OF_CHANNELS:
            return _resample(_mono(opened), opened.rate)[None]
        return np.stack([_resample(row_W, opened.rate) for row_W in _rows(opened, channels.channel)])


@contextlib.contextmanager
def _one_sentence(given: Any) -> Iterator[None]:
    """Turn whatever is raised while a recording is read into ``InputError``."""
    try:
        yield
    except InputError:
        raise
    # Of a name that nothing can have, or of an object that belongs to another library.
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        named = short_repr(str(given)) if isinstance(given, str | Path) else f"of type {type(given).__name__}"
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"recording {named} cannot be read: {reason}") from error


def _open(given: Any, retry_seconds: float) -> _Array | _File:
    """Return a recording as samples, or as a file or the contents of one."""
    if isinstance(given, Mapping):
        given, rate = _of_dictionary(given)
        if rate is not None:
            return _Array(np.asarray(given), rate)
    if isinstance(given, bytes | bytearray | memoryview):
        return _File(bytes(given))
    if isinstance(given, str) and is_remote(given):
        policy = RetryPolicy(total_seconds=retry_seconds)
        return _File(read_bytes(given, policy), raw_format(given.partition("?")[0]))
    if isinstance(given, str | Path):
        path = user_path(given)
        # libsndfile and FFmpeg take no names that are not UTF-8, such as those of a Latin-1 system.
        return _File(path) if _is_utf8(str(path)) else _File(path.read_bytes(), raw_format(path))
    if hasattr(
        given, "get_all_samples"
    ):  # a decoder of torchcodec, which datasets gives from its version 4 on
        decoded = given.get_all_samples()
        return _Array(np.atleast_2d(np.asarray(decoded.data)), int(decoded.sample_rate), has_channels=True)
    if hasattr(given, "__array__"):
        return _Array(np.asarray(given), SAMPLING_RATE)
    raise InputError(
        f"a recording is given as {type(given).__name__}: expected a path, an address, bytes, an array of "
        "16 kHz samples, or a dictionary of array and sampling_rate"
    )


def _decode(file: _File, channels: ChannelChoice) -> Float[np.ndarray, "C W"]:
    try:
        if channels.split_channels:
            return decode_channels(file.source, format=file.format, replace_damage=True)
        mono_W = decode_audio(file.source, format=file.format, channel=channels.channel, replace_damage=True)
        return mono_W[None]
    except AudioError as error:
        # Without samples there is nothing said; without a byte there is no recording.
        if error.kind != EMPTY or not Encoded(source=file.source).size:
            raise
        return np.zeros((1, 0), np.float32)


def _is_utf8(text: str) -> bool:
    """Return whether a name is UTF-8; names of files may hold bytes of another encoding."""
    return text.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in text)


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


def _mono(audio: _Array) -> np.ndarray:
    """Return the samples of an array without an axis of channels."""
    if audio.has_channels:
        return Downmix()(audio.samples.T)
    array = audio.samples
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise InputError(
            f"an array of shape {array.shape} is no recording: expected one of [samples]; of several "
            "channels give one, or their mean"
        )
    return array


def _rows(audio: _Array, channel: int | None) -> np.ndarray:
    """Return the rows of an array of channels: all, or the one that is chosen."""
    samples_CW = np.atleast_2d(audio.samples)
    if samples_CW.ndim != 2 or len(samples_CW) > MAX_CHANNELS:
        raise InputError(
            f"an array of shape {audio.samples.shape} is no recording: expected [channels, samples] of at "
            f"most {MAX_CHANNELS} channels"
        )
    if channel is None:
        return samples_CW
    if channel >= len(samples_CW):
        raise InputError(
            f"cannot take channel {channel} of an array: it has {len(samples_CW)}, and they are counted from "
            "0"
        )
    return samples_CW[channel : channel + 1]


def _resample(array_W: np.ndarray, rate: int) -> Float[np.ndarray, " W"]:
    """Check the samples of one channel and bring them to 16 kHz."""
    if not np.issubdtype(array_W.dtype, np.floating) and len(array_W):
        raise InputError(
            f"an array of {array_W.dtype} is no recording: expected floating-point samples in [-1, 1]; "
            "divide whole numbers by their range"
        )
    if not np.isfinite(array_W).all():
        raise InputError("an array holds NaN or infinite samples: make it again from its source")
    if rate < 1:
        raise InputError(f"sampling_rate {rate} is below 1")
    samples_W = array_W.astype(np.float32)
    if rate != SAMPLING_RATE and len(samples_W):
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    return samples_W
