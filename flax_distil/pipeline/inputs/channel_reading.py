"""One channel of a recording, or each by itself, whatever the recording is given as."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.audio.reading.decoding import decode_audio, decode_channels
from flax_distil.audio.reading.encoded import Encoded
from flax_distil.audio.reading.errors import EMPTY, AudioError
from flax_distil.audio.reading.sources import raw_format
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.paths import user_path
from flax_distil.data.remote.files import is_remote, read_bytes
from flax_distil.data.remote.retries import RetryPolicy
from flax_distil.pipeline.inputs.audio_inputs import ReadRecording, one_sentence, read_audio

MOST_CHANNELS = 64
"""An array of more rows is taken for one whose axes are swapped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelChoice:
    """What is heard of a recording of several channels.

    Attributes:
        channel: this one alone, counted from 0; None for the mean of all.
        split: each by itself.

    Raises:
        InputError: if the channel is negative, or both are asked for.
    """

    channel: int | None = None
    split: bool = False

    def __post_init__(self) -> None:
        if self.channel is not None and (not isinstance(self.channel, int) or self.channel < 0):
            raise InputError(f"channel {self.channel!r} is none: channels are counted from 0")
        if self.channel is not None and self.split:
            raise InputError("channel takes one channel and split_channels takes all: choose one of them")

    def read(self, name: Any, given: Any, *, retry_seconds: float) -> ReadRecording:
        """Read a recording.

        Args:
            name: what to call it.
            given: as for ``read_audio``; arrays may be ``[channels, samples]`` where channels are told apart.
            retry_seconds: how long a server that does not answer is asked again.

        Raises:
            InputError: as ``read_audio``, or if it does not have the channel.
        """
        if self.channel is None and not self.split:
            return ReadRecording(name, read_audio(given, retry_seconds=retry_seconds), None)
        with one_sentence(given):
            samples_CW = self._samples(given, retry_seconds)
        return ReadRecording(
            name, np.ascontiguousarray(samples_CW).reshape(-1), None, len(samples_CW) if self.split else 0
        )

    def _samples(self, given: Any, retry_seconds: float) -> Float[np.ndarray, "_ _"]:
        array = _array(given)
        if array is None:
            return self._decoded(*_encoded(given, retry_seconds))
        return np.stack(
            [
                read_audio({"array": row, "sampling_rate": array.rate}, retry_seconds=retry_seconds)
                for row in self._chosen(array.samples_CW)
            ]
        )

    def _chosen(self, samples_CW: np.ndarray) -> np.ndarray:
        if self.channel is None:
            return samples_CW
        if self.channel >= len(samples_CW):
            raise InputError(
                f"cannot take channel {self.channel} of an array: it has {len(samples_CW)}, and they are "
                "counted from 0"
            )
        return samples_CW[self.channel : self.channel + 1]

    def _decoded(self, source: Path | bytes, format: str | None) -> Float[np.ndarray, "_ _"]:
        try:
            if self.channel is None:
                return decode_channels(source, format=format, replace_damage=True)
            return decode_audio(source, format=format, channel=self.channel, replace_damage=True)[None]
        except AudioError as error:
            if error.kind != EMPTY or not Encoded(source=source).size:
                raise
            return np.zeros((1, 0), np.float32)  # there is nothing said in it


@dataclasses.dataclass(frozen=True)
class _Array:
    samples_CW: np.ndarray
    rate: int


def _array(given: Any) -> _Array | None:
    """Return a recording that is given as samples."""
    rate = 16_000
    if isinstance(given, Mapping):
        samples = given["raw"] if given.get("raw") is not None else given.get("array")
        if samples is None or given.get("sampling_rate") is None:
            return None
        given, rate = samples, int(given["sampling_rate"])
    elif hasattr(given, "get_all_samples"):  # a decoder of torchcodec
        decoded = given.get_all_samples()
        given, rate = decoded.data, int(decoded.sample_rate)
    elif not hasattr(given, "__array__"):
        return None
    samples_CW = np.atleast_2d(np.asarray(given))
    if samples_CW.ndim != 2 or len(samples_CW) > MOST_CHANNELS:
        raise InputError(
            f"an array of shape {np.shape(given)} is no recording: expected [channels, samples] of at most "
            f"{MOST_CHANNELS} channels"
        )
    return _Array(samples_CW, rate)


def _encoded(given: Any, retry_seconds: float) -> tuple[Path | bytes, str | None]:
    """Return a recording that is given as a file, or its contents, and its format where its name tells."""
    if isinstance(given, Mapping):
        given = given.get("bytes") if given.get("bytes") is not None else given.get("path")
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given), None
    if isinstance(given, str) and is_remote(given):
        policy = RetryPolicy(total_seconds=retry_seconds)
        return read_bytes(given, policy), raw_format(given.partition("?")[0])
    if isinstance(given, str | Path):
        return user_path(given), None
    raise InputError(
        f"a recording is given as {type(given).__name__}: expected a path, an address, bytes, or an array of "
        "[channels, samples]"
    )
