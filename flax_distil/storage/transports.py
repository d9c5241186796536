"""Make one attempt to read a part of a remote file, over HTTP or through an fsspec file system."""

import functools
import io
import logging
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flax_distil.core.errors import InputError
from flax_distil.storage.retries import BrokenAnswerError, strip_query

if TYPE_CHECKING:
    import aiohttp

# gcsfs, also where Orbax uses it, would request the kind of each bucket over gRPC, which hangs after a fork,
# or if only HTTPS is allowed. It reads this when it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

CHUNK_BYTES = 1 << 20

TAGS = ("ETag", "etag", "generation", "LastModified", "mtime")
"""Fields of file systems that change when the contents of a file change, besides its size."""

PACKAGES = {
    "gs": "gcsfs ('pip install gcsfs', or the extra 'gcs')",
    "s3": "s3fs ('pip install s3fs', or the extra 's3')",
}


_BUCKET = {"use_listings_cache": False}
_OPTIONS: dict[str, dict[str, Any]] = {"gs": {**_BUCKET, "consistency": "md5"}, "s3": _BUCKET}
"""Options of file systems. Other processes write to the same buckets, so no listing is remembered."""


class NoRangesError(Exception):
    """The error for a server that only sends whole files."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the contents of a file.

    Attributes:
        data: The requested bytes; there are fewer only at the end of the file.
        size: Number of bytes of the whole file.
        tag: Other properties that change when the file changes, if the server tells them.
    """

    data: bytes
    size: int
    tag: str


@runtime_checkable
class Transport(Protocol):
    """Reads one file, with one attempt per call."""

    def fetch(self, start: int, end: int, *, seconds: float) -> Part:
        """Read the bytes from ``start`` up to ``end``.

        Raises:
            NoRangesError: If the server only sends the whole file, which :meth:`download` reads.
        """

    def download(self, file: io.BufferedIOBase, *, seconds: float) -> None:
        """Write the whole file to ``file``; the attempt fails after ``seconds`` without a byte."""


def transport_for(url: str) -> Transport:
    """Return the transport for an address.

    Raises:
        InputError: If its kind is unknown, or the package that reads it is not installed.
    """
    protocol = protocol_of(url)
    if protocol in ("http", "https"):
        return HttpTransport(url)
    if protocol == "hf" and not url.startswith("hf://buckets/"):
        return _hub_transport(url)
    return FileSystemTransport(url)


def protocol_of(url: str) -> str:
    """Return the part of an address before ``://`` in lower case; empty for a path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    return match[1].lower() if match else ""


def filesystem(protocol: str) -> Any:
    """Return the fsspec file system of a protocol; there is one per process.

    Raises:
        InputError: If it is unknown, or its package is not installed.
    """
    return _filesystem(protocol, os.getpid())


@functools.cache
def _filesystem(protocol: str, _process: int) -> Any:
    # By default fsspec keeps one instance with its connections for each thread.
    import fsspec

    # It would log the traceback of each request that it gives up, before there is a sentence.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    try:
        return fsspec.filesystem(protocol, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        package = PACKAGES.get(protocol, str(error).splitlines()[0])
        raise InputError(f"reading {protocol}:// needs a package that is not installed: {package}") from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"addresses that start with {protocol}:// cannot be read: use gs://, s3://, http(s):// or hf://"
        ) from error


def call(
    method: Callable[..., Awaitable[Any]], files: Any, *args: Any, seconds: float | None, **options: Any
) -> Any:
    """Run a coroutine of a file system in the thread of fsspec, with a time-out unless it is None."""
    import fsspec.asyn

    return fsspec.asyn.sync(files.loop, method, *args, timeout=seconds, **options)


def ask(files: Any, method: str, *args: Any, seconds: float, **options: Any) -> Any:
    """Call a method of a file system, with a time-out if the file system is asynchronous."""
    if files.async_impl:
        return call(getattr(files, f"_{method}"), files, *args, seconds=seconds, **options)
    return getattr(files, method)(*args, **options)


class HttpTransport:
    """A file on a web server.

    Args:
        url: Address of the file.
        headers: Headers that are sent with every request.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None):
        self._url = url
        # Answers must not be compressed, because a part of a compressed file is not a part of the file.
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}

    def fetch(self, start: int, end: int, *, seconds: float) -> Part:
        """As :meth:`Transport.fetch`."""
        part: Part = call(self._fetch, filesystem("https"), start, end, seconds=seconds)
        return part

    async def _fetch(self, start: int, end: int) -> Part:
        async with await self._get({"Range": f"bytes={start}-{end - 1}"}) as answer:
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            given = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status == 416 and given:  # the range is after the end, or the file is empty
                return Part(data=b"", size=int(given[2]), tag=tag)
            answer.raise_for_status()
            if answer.status == 200 and not start and (answer.content_length or end + 1) <= end:
                data = await answer.read()
                return Part(data=data, size=len(data), tag=tag)
            if answer.status != 206 or not given:
                raise NoRangesError
            data, size = await answer.read(), int(given[2])
        if int(given[1] or 0) != start or len(data) != min(end, size) - start:
            raise BrokenAnswerError(f"{len(data)} bytes came instead of {min(end, size) - start}")
        return Part(data=data, size=size, tag=tag)

    def download(self, file: io.BufferedIOBase, *, seconds: float) -> None:
        """As :meth:`Transport.download`."""
        call(self._download, filesystem("https"), file, seconds, seconds=None)

    async def _download(self, file: io.BufferedIOBase, seconds: float) -> None:
        async with await self._get({}, seconds) as answer:
            answer.raise_for_status()
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)

    async def _get(self, headers: dict[str, str], seconds: float | None = None) -> "aiohttp.ClientResponse":
        import aiohttp

        files = filesystem("https")
        session = await files.set_session()
        try:
            address = files.encode_url(self._url)
        except ValueError as error:
            raise InputError(f"{strip_query(self._url)!r} is not an address ({error}): correct it") from error
        answer: aiohttp.ClientResponse = await session.get(
            address,
            headers={**self._headers, **headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds),
        )
        return answer


def _hub_transport(url: str) -> HttpTransport:
    """Return a transport for the web address of a Hub file; the Hub's file system has its own time-outs."""
    import huggingface_hub
    from huggingface_hub.utils import build_hf_headers, parse_hf_uri

    try:
        uri = parse_hf_uri(url)
    except ValueError as error:
        raise InputError(f"cannot read {url!r}: {str(error).splitlines()[0]}") from error
    address = huggingface_hub.hf_hub_url(uri.id, uri.path_in_repo, repo_type=uri.type, revision=uri.revision)
    return HttpTransport(address, build_hf_headers())


class FileSystemTransport:
    """A file on any fsspec file system.

    Args:
        url: Address of the file.
    """

    def __init__(self, url: str):
        self.url = url
        self._files = filesystem(protocol_of(url))
        self._info: dict[str, Any] = {}

    def fetch(self, start: int, end: int, *, seconds: float) -> Part:
        """As :meth:`Transport.fetch`."""
        path = self._files._strip_protocol(self.url)
        if not self._info:
            self._info = ask(self._files, "info", path, seconds=seconds)
        size = int(self._info["size"])
        tag = " ".join(str(self._info[key]) for key in TAGS if self._info.get(key) is not None)
        end = min(end, size)
        data = b""
        if start < end:
            data = ask(self._files, "cat_file", path, start=start, end=end, seconds=seconds)
            if len(data) != end - start:
                raise BrokenAnswerError(f"{len(data)} bytes came instead of {end - start}")
        return Part(data=data, size=size, tag=tag)

    def download(self, file: io.BufferedIOBase, *, seconds: float) -> None:
        """Raise an exception: this is never called, because all fsspec file systems read parts."""
        raise NotImplementedError
