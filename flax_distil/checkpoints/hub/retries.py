"""Requests to the Hugging Face Hub are repeated with growing pauses, unless the Hub refuses them."""

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from flax_distil.checkpoints.hub.download import reason
from flax_distil.core.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Pauses before each further try of one request: a Hub that is away for a minute ends no upload."""

_CONFLICTS = frozenset({409, 412})
"""HTTP statuses of a request that met another one; it is made again on top of that."""

_TRANSIENT = frozenset({408, 425, 429}) | _CONFLICTS

_LONGEST_RETRY_AFTER_SECONDS = 120.0

_jitter = random.Random()


class UploadError(RuntimeError):
    """An upload failed; the message says where the folder is and how to upload it again."""


def is_refusal(error: BaseException) -> bool:
    """Return whether the Hub refused a request (no token, no such user, quota) rather than failed."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and error.__cause__ is not None:  # that of a large file is wrapped
        return is_refusal(error.__cause__)
    return status is not None and 400 <= status < 500 and status not in _TRANSIENT


def is_permanent(error: Exception) -> bool:
    """Return whether the same request would fail again."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    own = (InputError, UploadError, HFValidationError, LocalTokenNotFoundError, FileNotFoundError)
    return isinstance(error, own) or is_refusal(error)


def patiently(attempt: Callable[[], T], *, action: str, stop: threading.Event | None = None) -> T:
    """Call a function that makes a request until it succeeds, with growing pauses between.

    Args:
        attempt: Makes one attempt.
        action: What is done, for the log, such as "the upload to 'user/name'".
        stop: No further attempt is made once this is set; None tries to the end.

    Raises:
        Exception: Whatever the last attempt raised; what would fail again (:func:`is_permanent`) is not tried
            again.
    """
    pauses = iter(PAUSES_SECONDS)
    while True:
        try:
            return attempt()
        except Exception as error:  # the network has too many ways to fail, of as many types
            pause = next(pauses, None)
            if pause is None or is_permanent(error) or (stop is not None and stop.is_set()):
                raise
            wait = max(pause * _jitter.uniform(0.5, 1.0), _retry_after(error))
            log.info("%s failed (%s): again in %.0f s", action, reason(error), wait)
        (stop or threading.Event()).wait(wait)


def _retry_after(error: Exception) -> float:
    """Return the number of seconds that the Hub asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = str(headers.get("Retry-After", ""))
    return min(float(value), _LONGEST_RETRY_AFTER_SECONDS) if value.isdigit() else 0.0
