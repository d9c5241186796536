"""Read files at addresses (``gs://``, ``s3://``, ``http(s)://``, ``hf://``) like local files."""

import functools
import glob
import io
import os
import re
import tempfile
from collections.abc import Iterable
from typing import Any, cast

from flax_distil.core.errors import InputError
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, SourceError, strip_query
from flax_distil.storage.transports import (
    NoRangesError,
    Part,
    ask,
    filesystem,
    protocol_of,
    transport_for,
)

ByteFile = io.RawIOBase | io.BufferedIOBase

BLOCK_BYTES = 8 << 20
"""Number of bytes of one request."""

KEPT_BLOCKS = 3
"""Number of blocks in memory; there are several because Parquet alternates between long and short columns."""


def is_remote(path: str) -> bool:
    """Return whether this is an address rather than a path."""
    return bool(protocol_of(path))


class RemoteFile(io.RawIOBase):
    """A seekable remote file, which is read block by block, for use in one thread.

    Failed requests are repeated according to the policy. From a server that only sends whole files, a
    temporary copy is downloaded.

    Args:
        url: The address.
        policy: Policy for repeating failed requests.
    """

    def __init__(self, url: str, policy: RetryPolicy):
        self.url = url
        self._policy = policy
        self._position = 0
        self._size: int | None = None
        self._copy: io.BufferedIOBase | None = None
        self._block = functools.lru_cache(KEPT_BLOCKS)(self._read_block)
        self._transport = transport_for(url)

    @property
    def size(self) -> int:
        """Number of bytes of the file.

        Raises:
            SourceError: If the server does not tell it.
        """
        if self._size is None:
            self._block(self._position // BLOCK_BYTES)
        return cast(int, self._size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, without reading."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = offset + (self.size if whence == os.SEEK_END else origin[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, which is filled completely unless the file ends.

        Raises:
            SourceError: If the file cannot be read.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            number, offset = divmod(self._position, BLOCK_BYTES)
            data = self._block(number)[offset : offset + len(view) - done]
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def close(self) -> None:
        """Release the blocks and the temporary copy."""
        self._block.cache_clear()
        if self._copy is not None:
            self._copy.close()
        super().close()

    def _read_block(self, number: int) -> bytes:
        start = number * BLOCK_BYTES
        if self._copy is None:
            try:
                part = self._policy.run(lambda: self._attempt(start), url=self.url)
                if self._size not in (None, part.size):
                    raise SourceError(
                        f"cannot read {strip_query(self.url)}: its size changed from {self._size} to "
                        f"{part.size} bytes while it was read; start again from its beginning"
                    )
                self._size = part.size
                return part.data
            except NoRangesError:
                self._copy = self._policy.run(self._download, url=self.url)
                self._size = self._copy.seek(0, os.SEEK_END)
        self._copy.seek(start)
        return self._copy.read(BLOCK_BYTES)

    def _attempt(self, start: int) -> Part:
        return self._transport.fetch(start, start + BLOCK_BYTES, seconds=self._policy.read_seconds)

    def _download(self) -> io.BufferedIOBase:
        copy = cast(io.BufferedRandom, tempfile.TemporaryFile())  # noqa: SIM115 (closed with this file)
        try:
            self._transport.download(copy, seconds=self._policy.read_seconds)
        except BaseException:
            copy.close()
            raise
        return copy


def open_file(path: str, policy: RetryPolicy) -> ByteFile:
    """Open a path or an address for reading.

    Raises:
        InputError: If there is no such file.
    """
    if is_remote(path):
        return RemoteFile(path, policy)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


def read_bytes(url: str, policy: RetryPolicy = DEFAULT_POLICY) -> bytes:
    """Return the contents of a remote file.

    Args:
        url: The address.
        policy: Policy for repeating failed requests.

    Raises:
        SourceMissingError: If there is no such file.
        SourceError: If it cannot be read.
    """
    with RemoteFile(url, policy) as file:
        return file.read(file.size)


def file_identity(path: str, policy: RetryPolicy) -> str:
    """Return a text that changes when a file changes: its size, and its time or tag if they are known.

    Raises:
        InputError: If there is no such file, or the server cannot be asked.
    """
    if not is_remote(path):
        with open_file(path, policy) as file:
            status = os.fstat(file.fileno())
        return f"{status.st_size} {status.st_mtime_ns}"
    transport = transport_for(path)
    try:
        part = policy.run(lambda: transport.fetch(0, 1, seconds=policy.read_seconds), url=path)
    except NoRangesError:
        return ""
    return f"{part.size} {part.tag}"


def has_pattern(path: str) -> bool:
    """Return whether a path or address is a pattern."""
    return re.search(r"[*\[{]", path if is_remote(path) else path.replace("?", "*")) is not None


def expand(pattern: str, policy: RetryPolicy) -> list[str]:
    """Return the files that match a path or address with ``*``, ``**``, ``[…]`` or ``{00..99}``.

    Args:
        pattern: The pattern. Braces are expanded first; names without wildcards are then not looked up.
        policy: Policy for repeating failed requests.

    Raises:
        InputError: If the braces do not match, or no file matches the pattern.
        SourceError: If the server cannot be asked.
    """
    import braceexpand

    try:
        patterns = list(braceexpand.braceexpand(pattern)) if "{" in pattern else [pattern]
    except ValueError as error:
        raise InputError(f"{pattern!r}: its braces do not match; write {{0000..0099}} or {{a,b}}") from error
    files = [file for part in patterns for file in _glob(part, policy)]
    if not files:
        raise InputError(f"no file matches {strip_query(pattern)!r}: check the pattern")
    return list(dict.fromkeys(files))


def _glob(pattern: str, policy: RetryPolicy) -> Iterable[str]:
    if not has_pattern(pattern):
        return [pattern]
    if not is_remote(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    return _list(pattern, "glob", policy)


def list_folder(url: str, policy: RetryPolicy) -> list[str]:
    """Return all files below a remote folder, sorted by name.

    Raises:
        SourceError: If it cannot be listed.
    """
    return _list(url, "find", policy)


def _list(url: str, method: str, policy: RetryPolicy) -> list[str]:
    protocol = protocol_of(url)
    files = filesystem(protocol)
    path = files._strip_protocol(url)

    def attempt() -> list[str]:
        # A listing from before a failure may be incomplete.
        files.invalidate_cache()
        found = ask(files, method, path, seconds=policy.read_seconds)
        return [name if is_remote(name) else f"{protocol}://{name.lstrip('/')}" for name in sorted(found)]

    return [name for name in policy.run(attempt, url=url) if not name.endswith("/")]
