"""Explain failures of storage, such as a full disk, in one sentence."""

import errno
import os
from collections.abc import Iterator

STORAGE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "allow larger files",
    errno.EROFS: "name a folder that may be written to",
    errno.EACCES: "name one that may be used",
    errno.EPERM: "name one that may be used",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount it again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files",
    errno.ENFILE: "allow more open files",
}
"""Remedy for each error number of storage."""

_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
"""Codes of errors in messages of storage and compute libraries that do not come from what a file holds."""

_SHOWN_CHARACTERS = 160


def storage_failure(error: BaseException) -> str | None:
    """Return the sentence for a failure of storage; None if the error is of another kind.

    Libraries raise their own errors when a disk is full, so the causes of the error are examined too, and
    finally the words of the messages.
    """
    number, name = _storage_error(error)
    if number is None:
        return None
    return (
        f"storage{name} failed ({os.strerror(number)}): what is finished stays; {STORAGE[number]}, "
        "and run the same command again"
    )


def short_reason(error: BaseException) -> str:
    """Return why something failed, in a few words: of storage, or the beginning of the error's message."""
    number, _ = _storage_error(error)
    if number is not None:
        return os.strerror(number)
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[:_SHOWN_CHARACTERS]}…"


def is_passing(error: BaseException) -> bool:
    """Return whether reading failed for another reason than what a file holds, so that it may work later.

    Such reasons are permissions, credentials, the network and a lack of memory.
    """
    kinds = (PermissionError, ConnectionError, TimeoutError, MemoryError)
    return any(
        isinstance(cause, kinds) or any(code in str(cause) for code in _PASSING) for cause in _causes(error)
    )


def _storage_error(error: BaseException) -> tuple[int | None, str]:
    """Return the number of a failure of storage, or None, and the name of its file after a space."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            name = f" {os.fsdecode(cause.filename)!r}" if isinstance(cause.filename, str | bytes) else ""
            return cause.errno, name
    words = " ".join(map(str, causes))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        if os.strerror(number) in words:
            return number, ""
    return None, ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
