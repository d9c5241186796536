"""Addresses of files and folders in buckets (``gs://``, ``s3://``), used like ``pathlib.Path``."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.storage.retries import BrokenAnswerError, RetryPolicy, SourceMissingError
from flax_distil.storage.transports import ask, filesystem, protocol_of

SCHEMES = ("gs", "s3")
"""Kinds of buckets that results are written to."""

POLICY = RetryPolicy()
"""How failed requests are repeated when results are written, listed, deleted or read again."""

THREADS = 8
"""Number of requests at the same time."""

ONE_REQUEST_BYTES = 32 << 20
"""Larger files are uploaded in several requests."""

SLOWEST_BYTES_PER_SECOND = 1 << 20
"""An upload that is slower than this is repeated."""


@dataclasses.dataclass(frozen=True, order=True)
class BucketPath:
    """An object in a bucket, or a folder: everything whose name begins with the address and a slash.

    Objects appear whole or not at all, and folders need not be made. Each method repeats failed requests
    according to :data:`POLICY`.

    Attributes:
        address: The address without a slash at its end: ``gs://bucket/folder/name``.

    Raises:
        InputError: If it is not such an address. Methods raise a ``SourceError`` if the bucket cannot be
            read, and a ``StorageError`` if it cannot be written to.
    """

    address: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.address.partition("://")
        parts = rest.rstrip("/").split("/")
        if scheme.lower() not in SCHEMES or not parts[0] or {"", ".", ".."} & set(parts):
            raise InputError(
                f"{self.address!r} is not the address of a folder or file in a gs:// or s3:// bucket"
            )
        object.__setattr__(self, "address", f"{scheme.lower()}://{'/'.join(parts)}")

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str | PurePosixPath) -> "BucketPath":
        return BucketPath(f"{self.address}/{str(name).strip('/')}")

    def joinpath(self, *names: str) -> "BucketPath":
        """Return the path of something below."""
        return self / "/".join(names)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The end of the name from its last point on."""
        return self._pure.suffix

    @property
    def parent(self) -> "BucketPath":
        """The folder that this is in; the bucket itself is its own parent."""
        above = self.address.rpartition("/")[0]
        return self if above.endswith("/") else BucketPath(above)

    def relative_to(self, folder: "BucketPath") -> PurePosixPath:
        """Return the part of the address below a folder.

        Raises:
            ValueError: If it is not below the folder.
        """
        return PurePosixPath(self.address).relative_to(folder.address)

    def absolute(self) -> "BucketPath":
        """Return the path itself."""
        return self

    def exists(self) -> bool:
        """Return whether it is a file or a folder with something in it."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Return whether it is an object."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Return whether something is below it."""
        return (self._info() or {}).get("type") == "directory"

    def size(self) -> int:
        """Return the number of bytes of a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        info = self._info()
        if info is None:
            raise FileNotFoundError(self.address)
        return int(info["size"])

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yield what is in the folder, sorted by name; nothing if there is no such folder."""
        try:
            found = self._ask("ls", detail=False)
        except SourceMissingError:
            return
        below = (name.rstrip("/")[len(self._ask_path) + 1 :] for name in found)
        names = {name for name in below if name}  # a marker of the folder itself has none
        yield from (self / name for name in sorted(names))

    def files(self, *, deep: bool = True) -> dict[str, dict[str, Any]]:
        """Return what the bucket knows of all files below, or of those directly in the folder, by name."""
        root = self._ask_path
        try:
            found = self._ask("find", detail=True, maxdepth=None if deep else 1)
        except SourceMissingError:
            return {}
        below = {name[len(root) + 1 :]: info for name, info in found.items() if name.startswith(f"{root}/")}
        return {name: below[name] for name in sorted(below) if name and not name.endswith("/")}

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yield the files below that match a pattern without ``**``, sorted by name."""
        if "/" not in pattern:
            names = (path.name for path in self.iterdir())
        else:
            names = (name for name in self.files() if name.count("/") == pattern.count("/"))
        for name in names:
            if PurePosixPath(name).match(pattern):
                yield self / name

    def read_bytes(self) -> bytes:
        """Return the contents of a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        try:
            data: bytes = self._ask("cat_file")
        except SourceMissingError as error:
            raise FileNotFoundError(2, "No such object", self.address) from error
        return data

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the contents of a text file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes, *, patience_seconds: float | None = None) -> None:
        """Write a file whole.

        Args:
            data: Contents of the file.
            patience_seconds: Time after which a write that keeps failing is given up; by default that of
                :data:`POLICY`.
        """
        policy = POLICY if patience_seconds is None else RetryPolicy.with_limit(patience_seconds)
        self._ask("pipe_file", data, action="write", size=len(data), policy=policy)

    def create(self, data: bytes) -> bool:
        """Write a file unless it exists, and return whether this did: of several callers, one has True."""

        def attempt() -> bool:
            seconds = _patience(len(data))
            try:
                ask(self._files, "pipe_file", self._ask_path, data, mode="create", seconds=seconds)
            except FileExistsError:
                return False
            return True

        # An earlier request may have succeeded although its answer was lost.
        return POLICY.run(attempt, url=self.address, action="write") or self.read_bytes() == data

    def upload(self, local: Path) -> None:
        """Write a file with the contents of a local file."""
        size = local.stat().st_size
        if size <= ONE_REQUEST_BYTES:
            return self.write_bytes(local.read_bytes())

        def attempt() -> None:
            try:
                ask(self._files, "put_file", str(local), self._ask_path, seconds=_patience(size))
            except FileNotFoundError as error:  # the server forgot the upload, not the bucket
                raise BrokenAnswerError("the upload was lost") from error

        return POLICY.run(attempt, url=self.address, action="write")

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete a file.

        Raises:
            FileNotFoundError: If there is no such file, unless that is accepted.
        """
        try:
            self._ask("rm_file", action="delete")
        except SourceMissingError as error:
            if not missing_ok:
                raise FileNotFoundError(2, "No such object", self.address) from error

    def remove_tree(self) -> None:
        """Delete all files below."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: (self / name).unlink(missing_ok=True), self.files()))

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.address)

    @property
    def _files(self) -> Any:
        return filesystem(protocol_of(self.address))

    @property
    def _ask_path(self) -> str:
        path: str = self._files._strip_protocol(self.address)
        return path

    def _info(self) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._ask("info")
        except SourceMissingError:
            return None
        return info

    def _ask(
        self,
        method: str,
        *args: Any,
        action: str = "read",
        size: int = 0,
        policy: RetryPolicy | None = None,
        **options: Any,
    ) -> Any:
        def attempt() -> Any:
            return ask(self._files, method, self._ask_path, *args, seconds=_patience(size), **options)

        return (policy or POLICY).run(attempt, url=self.address, action=action)


def _patience(size: int) -> float:
    """Return the time limit in seconds of a request with so many bytes."""
    return POLICY.read_seconds + size / SLOWEST_BYTES_PER_SECOND
