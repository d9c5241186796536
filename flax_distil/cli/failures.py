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


def storage_failure(error: BaseException) -> str | None:
    """Return the sentence for a failure of storage; None if the error is of another kind.

    Libraries raise their own errors when a disk is full, so the causes of the error are examined too, and
    finally the words of the messages.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            name = f" {os.fsdecode(cause.filename)!r}" if isinstance(cause.filename, str | bytes) else ""
            return _sentence(cause.errno, name)
    words = " ".join(map(str, causes))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        if os.strerror(number) in words:
            return _sentence(number, "")
    return None


def _sentence(number: int, name: str) -> str:
    return (
        f"storage{name} failed ({os.strerror(number)}): what is finished stays; {STORAGE[number]}, "
        "and run the same command again"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
