"""Repeat failed requests to a server up to a time limit, and then report the failure in one sentence."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from flax_distil.core.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")

_jitter = random.Random()

SHORTEST_READ_SECONDS = 10.0
"""Minimum time limit of a request, even if the limit of the policy is shorter."""

TRANSIENT_STATUS = frozenset({408, 425, 429})
"""HTTP statuses below 500 after which the same request may succeed."""

NETWORK_LIBRARIES = frozenset(
    {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "httpx2", "requests", "urllib3"}
)
"""Packages whose errors, if they have no HTTP status, mean that a connection failed."""

CREDENTIALS = {
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS or run 'gcloud auth application-default login'",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for open data, FSSPEC_S3_ANON=true",
    "hf": "accept the data set's terms on the Hub and run 'hf auth login'",
}


class SourceError(InputError):
    """The error for a source that cannot be read; the message names the source, the reason and the remedy."""


class SourceMissingError(SourceError):
    """The error for a file that does not exist, according to the server."""


class StorageError(InputError):
    """The error for an address that cannot be written to; the message names it, the reason and the remedy."""


class BrokenAnswerError(ConnectionError):
    """The error for an answer that does not match the request: it is too short, or begins elsewhere."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How failed requests to a server are repeated.

    Attributes:
        total_seconds: Time after which a read that keeps failing is given up; with 0 there is one attempt.
        first_pause_seconds: Pause after the first failure; the pause doubles with each further one.
        largest_pause_seconds: Maximum length of a pause.
        read_seconds: Time limit of one request (of at most 8 MB).
    """

    total_seconds: float = 1800.0
    first_pause_seconds: float = 0.5
    largest_pause_seconds: float = 60.0
    read_seconds: float = 60.0

    @classmethod
    def with_limit(cls, seconds: float) -> "RetryPolicy":
        """Return a policy with a time limit, which also limits each request."""
        return cls(
            total_seconds=seconds, read_seconds=min(cls.read_seconds, max(seconds, SHORTEST_READ_SECONDS))
        )

    def run(self, attempt: Callable[[], T], *, url: str, action: str = "read") -> T:
        """Call ``attempt`` until it succeeds.

        Args:
            attempt: Function that makes one attempt.
            url: Address of the file, for messages.
            action: What is done, for messages: "read", "write" or "delete".

        Raises:
            SourceMissingError: If there is no such file.
            SourceError: If it may not be read, or still fails after ``total_seconds``.
            StorageError: The same for other actions.
        """
        started = time.monotonic()
        pause = self.first_pause_seconds
        attempts = 0
        while True:
            try:
                return attempt()
            except Exception as error:
                self._stop_if_permanent(error, url, action)
                attempts += 1
                waited = time.monotonic() - started
                reason = self._reason(error)
                if waited >= self.total_seconds:
                    longer = ", or raise source_retry_seconds" if action == "read" else ""
                    raise _failure(action)(
                        f"cannot {action} {strip_query(url)}: {reason} (tried {attempts} times in "
                        f"{waited:.0f} s); start the same command again once it answers{longer}"
                    ) from error
                # The pause has a random part, so that processes that failed together do not retry together.
                wanted = max(pause * _jitter.uniform(0.5, 1.0), _retry_after(error))
                wanted = min(wanted, self.total_seconds - waited)
            log.log(
                logging.DEBUG if attempts == 1 else logging.WARNING,
                "cannot %s %s: %s; attempt %d follows in %.1f s",
                action,
                strip_query(url),
                reason,
                attempts + 1,
                wanted,
            )
            time.sleep(wanted)
            pause = min(2 * pause, self.largest_pause_seconds)

    def _stop_if_permanent(self, error: Exception, url: str, action: str) -> None:
        """Raise an exception unless the next attempt may succeed."""
        status = _status(error)
        if status is not None and (status >= 500 or status in TRANSIENT_STATUS):
            return
        what = f"cannot {action} {strip_query(url)}"
        if isinstance(error, (FileNotFoundError, IsADirectoryError)) or status in (404, 410):
            raise SourceMissingError(f"{what}: it does not exist; check the address") from error
        if _is_refusal(error, status):
            remedy = CREDENTIALS.get(url.partition("://")[0], "check the address and its access rights")
            raise _failure(action)(f"{what}: no permission ({self._reason(error)}); {remedy}") from error
        if not isinstance(error, OSError) and _module(error) not in NETWORK_LIBRARIES:
            raise error  # a fault of this program, or an error that already has a sentence
        if status is not None or isinstance(error, ValueError):  # ValueError: not a valid address
            raise _failure(action)(f"{what}: {self._reason(error)}; check the address") from error

    def _reason(self, error: Exception) -> str:
        status = _status(error)
        if status is not None:
            return f"the server answered {status}"
        if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
            return f"no whole answer within {self.read_seconds:g} s"
        return _first_line(error)


DEFAULT_POLICY = RetryPolicy()
"""Policy for long commands, which survive half an hour without an answer."""


def strip_query(url: str) -> str:
    """Return an address without password and query, which may be a signature, for messages and logs."""
    return re.sub(r"://[^/@\s]*@", "://", url.partition("?")[0]) if "://" in url else url


def damaged_error(path: str, reason: object) -> InputError:
    """Return the error for a file whose contents do not match its name."""
    text = (str(reason).strip() or type(reason).__name__).splitlines()[0].rstrip(".")
    return InputError(
        f"cannot read {strip_query(path)!r}: it is damaged or cut short ({text}); fetch or write it again"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, because file systems wrap the errors of their clients."""
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error, which libraries keep in different places."""
    for cause in _chain(error):
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict):  # botocore
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        elif answer is not None:  # huggingface_hub, requests
            status = getattr(answer, "status_code", None)
        elif _module(cause) == "gcsfs":
            status = getattr(cause, "code", None)
        else:  # aiohttp
            status = getattr(cause, "status", None)
        if str(status).isdigit():
            return int(str(status))
    return None


def _failure(action: str) -> type[InputError]:
    return SourceError if action == "read" else StorageError


def _is_refusal(error: Exception, status: int | None) -> bool:
    return (
        status in (401, 403)
        or isinstance(error, PermissionError)
        or "Credential" in type(error).__name__  # botocore, google.auth: none found
        or (type(error).__name__ == "RefreshError" and not getattr(error, "retryable", False))  # google.auth
        or str(error).startswith("Forbidden: ")  # a 403 of gcsfs
    )


def _retry_after(error: Exception) -> float:
    """Return the number of seconds that the server asks to wait."""
    for cause in _chain(error):
        headers = getattr(cause, "headers", None)
        value = headers.get("Retry-After", "") if headers else ""
        if value.isdigit():
            return float(value)
    return 0.0


def _module(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
