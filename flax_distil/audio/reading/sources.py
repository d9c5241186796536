"""A recording that can be opened, and the readers that are tried on it in turn."""

import contextlib
import functools
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flax_distil.audio.reading.encoded import Encoded, is_mpeg_audio, is_text
from flax_distil.audio.reading.errors import EMPTY, AudioError, no_file, no_text, unreadable
from flax_distil.audio.reading.joined_streams import stream_parts
from flax_distil.audio.reading.ogg_pages import walk_pages
from flax_distil.audio.reading.pyav_reader import open_with_pyav
from flax_distil.audio.reading.readers import (
    AudioStream,
    Opener,
    UnreadableError,
    open_joined,
    open_with_soundfile,
)
from flax_distil.audio.reading.wav_header import complete_wav

T = TypeVar("T")

RAW_FORMATS = {".g722": "g722"}
"""Suffixes of headerless bitstreams, which only their name identifies."""


def raw_format(name: str | Path) -> str | None:
    """Return the headerless format of a file name, or None if the file has a header.

    Args:
        name: A file name or path; it need not exist. Use it where only the bytes are at
            hand and their origin is known: ``decode_audio(data, format=raw_format(path))``.

    Returns:
        ``"g722"`` for names ending in ``.g722``, else None.
    """
    return RAW_FORMATS.get(Path(name).suffix.lower())


@dataclass(frozen=True, kw_only=True)
class AudioSource:
    """A recording that exists and is not a text file.

    Attributes:
        name: What error messages call it.
        parts: The concatenated streams of the recording; most recordings have one.
        openers: What may read it, by name, in turn: what one cannot read is left to the next.
    """

    name: str
    parts: Sequence[Encoded]
    openers: dict[str, Opener]

    @classmethod
    def find(
        cls, source: str | Path | bytes, format: str | None = None, *, replace_damage: bool = False
    ) -> "AudioSource":
        """Check what can be checked without a decoder.

        Args:
            source: A path, or the contents of a file.
            format: FFmpeg's name of the format, for bytes without a header.
            replace_damage: Let the last reader go on after damage.

        Raises:
            AudioError: If it is missing, empty, or text.
        """
        if isinstance(source, bytes):
            if not source:
                raise AudioError(
                    EMPTY, "cannot read audio given as bytes: it has 0 bytes; check where it came from"
                )
            name = f"audio given as {len(source)} bytes"
        else:
            source = Path(source)
            _check_file(source)
            name, format = f"audio file '{source}'", format or raw_format(source)
        encoded = Encoded(source=source)
        with_pyav = functools.partial(open_with_pyav, format=format)
        openers: dict[str, Opener] = {"libsndfile": open_with_soundfile, "FFmpeg": with_pyav}
        if replace_damage:
            openers["FFmpeg, behind the damage,"] = functools.partial(with_pyav, replace_damage=True)
        if format is not None:
            del openers["libsndfile"]
            return cls(name=name, parts=[encoded], openers=openers)
        head = encoded.head()
        if is_text(head):
            raise no_text(name)
        encoded = complete_wav(encoded)
        pages = walk_pages(encoded) if head.startswith(b"OggS") else None
        damaged = None if pages is None else pages.damaged
        if damaged is not None and not replace_damage:
            raise unreadable(name, f"it is damaged at byte {damaged}")
        if damaged is not None or is_mpeg_audio(encoded):
            del openers["libsndfile"]
        return cls(name=name, parts=stream_parts(encoded, pages), openers=openers)

    @property
    def exact(self) -> Encoded | None:
        """The file, if libsndfile reads it as one stream and so can seek in it exactly."""
        return self.parts[0] if len(self.parts) == 1 and "libsndfile" in self.openers else None

    def use(self, use: Callable[[AudioStream], T]) -> T:
        """Call a function with the recording, opened by the first reader with which it succeeds.

        Raises:
            AudioError: If there is none; where several fail, any may hold the reason the user needs.
        """
        reasons: dict[str, UnreadableError] = {}
        for name, open_one in self.openers.items():
            try:
                with self._system_errors(), open_joined(self.parts, open_one) as stream:
                    return use(stream)
            except UnreadableError as error:
                reasons[name] = error
        raise self._unreadable(reasons)

    @contextlib.contextmanager
    def open(self) -> Iterator[AudioStream]:
        """Open with the first reader that can; after blocks were read, no other reader is tried.

        Raises:
            AudioError: If there is none, or while blocks are read.
        """
        try:
            with self._system_errors(), contextlib.ExitStack() as stack:
                yield self._open_first(stack)
        except UnreadableError as error:
            raise unreadable(self.name, str(error)) from error

    def _open_first(self, stack: contextlib.ExitStack) -> AudioStream:
        reasons: dict[str, UnreadableError] = {}
        for name, open_one in self.openers.items():
            try:
                return stack.enter_context(open_joined(self.parts, open_one))
            except UnreadableError as error:
                reasons[name] = error
        raise self._unreadable(reasons)

    @contextlib.contextmanager
    def _system_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unreadable(self.name, (error.strerror or str(error)).lower()) from error

    def _unreadable(self, reasons: dict[str, UnreadableError]) -> AudioError:
        told = dict[str, str]()
        for name, error in reasons.items():
            if str(error) not in told.values():
                told[name] = str(error)
        if len(told) == 1:
            (reason,) = told.values()
        else:
            reason = ", ".join(f"{name} says '{reason}'" for name, reason in told.items())
        return unreadable(self.name, reason)


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise no_file(path, "it is a folder; name the files in it")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise no_file(path, "it is not a regular file; copy its contents to one")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise no_file(path, "it does not exist; check the path") from error
    except PermissionError as error:
        raise no_file(
            path, "there is no permission to read it; change its mode, or that of its folder"
        ) from error
    except OSError as error:
        raise no_file(path, f"{(error.strerror or str(error)).lower()}; check the path") from error
    except ValueError as error:  # a NUL character in the name
        if isinstance(error, AudioError):
            raise
        raise no_file(path, f"{error}; check the path") from error
    if status.st_size == 0:
        raise AudioError(
            EMPTY, f"cannot read audio file '{path}': it is empty (0 bytes); fetch or write it again"
        )
