"""Decode audio with FFmpeg's libraries, through PyAV; only audio files, and no file that they refer to."""

import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from flax_distil.audio.reading.encoded import Encoded, mpeg_tells_length
from flax_distil.audio.reading.readers import BLOCK_SAMPLES, AudioStream, UnreadableError, check_rate
from flax_distil.audio.reading.timeline import Silence, Timeline
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError

FORMATS = (
    "aac,ac3,ac4,aea,aiff,alaw,amr,amrnb,amrwb,ape,asf,au,avi,caf,codec2,dsf,dss,dts,dtshd,dv,eac3,epaf,"
    "f32be,f32le,flac,flv,g722,g723_1,g726,g726le,g729,gsm,iff,ilbc,ircam,latm,lc3,loas,matroska,mlp,mmf,"
    "mov,mp3,mpc,mpc8,mpeg,mpegts,mtaf,mulaw,mxf,nistsphere,nut,ogg,oma,osq,paf,pvf,qcp,qoa,rm,rso,s16be,"
    "s16le,s24be,s24le,s32be,s32le,s8,sbc,shn,sln,sox,spdif,tak,truehd,tta,u8,voc,vqf,w64,wav,webm,wsd,wtv,"
    "wv,xa,xwma"
)
"""FFmpeg's names of the formats that are read. Playlists (hls, dash, concat, sdp and others), which name
what else to open, patterns of images and devices are not among them."""

OPTIONS = {
    "format_whitelist": FORMATS,
    # The file is opened here. FFmpeg itself opens nothing, by no protocol.
    "protocol_whitelist": "none",
}

TIMED_CONTAINERS = frozenset({"mov", "matroska", "g722"})
"""Containers whose stated duration is exact; FFmpeg guesses the others' from their bit rate."""


@contextlib.contextmanager
def open_with_pyav(
    encoded: Encoded, *, format: str | None = None, replace_damage: bool = False
) -> Iterator[AudioStream]:
    """Open the first audio stream of any format that FFmpeg's libraries know.

    Args:
        encoded: A file, or its contents.
        format: FFmpeg's name of the format; needed where nothing in the bytes tells it.
        replace_damage: Go on after what cannot be decoded, with silence in its place.

    Raises:
        UnreadableError: If there is no audio in it, or it is damaged; also while blocks are read.
    """
    with _container(encoded, format) as (container, stream), encoded.open() as file:
        names = container.format.name.split(",")
        exact = TIMED_CONTAINERS.intersection(names) or ("mp3" in names and mpeg_tells_length(encoded))
        stated = float(stream.duration * stream.time_base) if stream.duration else None
        timeline = Timeline(names, stated, replace_damage=replace_damage)
        decoded = timeline.frames(container, stream, file)
        first = next(decoded, None)
        if first is None:
            raise UnreadableError("it holds no samples")
        yield AudioStream(
            encoding=f"{container.format.name} {stream.codec_context.name}",
            channels=first.layout.nb_channels,
            rate=check_rate(first.sample_rate),  # a decoder may double the container's (HE-AAC)
            seconds=stated if exact else None,
            blocks=_blocks(first, decoded),
            damage=timeline.damage,
        )


def _blocks(first: Any, others: Iterator[Any]) -> Iterator[Float[np.ndarray, "_ _"]]:
    convert = _Converter(first.sample_rate, first.layout.nb_channels)
    gathered: list[np.ndarray] = []
    size = 0
    for frame in itertools.chain([first], others, [None]):
        for part_WC in convert(frame):
            gathered.append(part_WC)
            size += part_WC.size
        if size >= BLOCK_SAMPLES or (frame is None and gathered):
            yield np.concatenate(gathered)
            gathered, size = [], 0


class _Converter:
    """Converts frames to floating-point samples at the rate of the first frame; their format may change."""

    def __init__(self, rate: int, channels: int):
        self._rate, self._channels = rate, channels
        self._kind: tuple[str, str, int] | None = None
        self._resampler: Any = None

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        """Yield the samples of a frame or a silence, after those that are held; None ends the stream."""
        if frame is None or isinstance(frame, Silence):
            yield from self._flush()
            if frame is not None:
                yield np.zeros((frame.samples, self._channels), np.float32)
            return
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            import av

            yield from self._flush()
            if frame.layout.nb_channels != self._channels:
                raise UnreadableError("the number of its channels changes")
            self._kind, self._resampler = kind, av.AudioResampler("fltp", frame.layout, self._rate)
        yield from (part.to_ndarray().T for part in self._resampler.resample(frame))

    def _flush(self) -> Iterator[np.ndarray]:
        if self._resampler is not None:
            yield from (part.to_ndarray().T for part in self._resampler.resample(None))
        self._kind = self._resampler = None


class _Quiet:
    """A file that returns failed seeks as a value, since PyAV would print the exception."""

    def __init__(self, file: io.BufferedIOBase):
        self.name = str(getattr(file, "name", ""))  # some formats are known by their suffix
        self.read, self.tell = file.read, file.tell
        self._file = file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


@contextlib.contextmanager
def _container(encoded: Encoded, format: str | None) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first audio stream; failures, reading included, become one error."""
    import av

    try:
        with encoded.open() as file, av.open(_Quiet(file), format=format, options=OPTIONS) as container:
            if not container.streams.audio:
                raise UnreadableError("it holds no audio stream")
            streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
            if not streams:
                raise UnreadableError("nothing decodes its audio stream")
            if streams[0].codec_context.name == "flac":
                # A damaged frame would be noise at full scale: its sum is compared.
                streams[0].codec_context.options = {"err_detect": "crccheck+explode"}
            yield container, streams[0]
    except InputError:  # a ValueError too: the caller's own verdict on what was read
        raise
    except av.FFmpegError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from error
    except ValueError as error:  # an unknown format name
        raise UnreadableError(str(error)) from error
