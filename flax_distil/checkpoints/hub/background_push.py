"""Pushes in the background: the latest one runs next, and those that it overtakes are left out."""

import logging
import threading
from collections.abc import Callable

from flax_distil.checkpoints.hub.download import reason
from flax_distil.checkpoints.hub.retries import UploadError

log = logging.getLogger(__name__)

_LEAVING_SECONDS = 5.0
"""Time that a push which is abandoned has to end by itself, before the process ends without it."""


class BackgroundPush:
    """Calls a function that pushes the state of a step, in a thread of its own.

    What fails is told in a sentence, and never raised: whoever uses this pushes again at the end.

    Args:
        push: Pushes the state of a step. It gets the number of the step, and an event after which it makes
            no further attempt.
        name: What is pushed where, for messages.
    """

    def __init__(self, push: Callable[[int, threading.Event], None], *, name: str) -> None:
        self._push, self._name = push, name
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._next: int | None = None
        # A daemon, so that a process that must end does not wait for the Hub.
        self._thread = threading.Thread(target=self._run, name="push to the Hub", daemon=True)
        self._thread.start()

    def request(self, step: int) -> None:
        """Have the state of a step pushed as soon as no other push is running, unless a later one comes."""
        with self._changed:
            self._next = step
            self._changed.notify()

    def finish(self) -> None:
        """Wait for the push that is running, without repeating what fails; one that waits is left out."""
        self._end()
        self._thread.join()

    def abandon(self) -> None:
        """Begin no further push, and wait a few seconds for the one that is running.

        A push is one commit: one that is left in the middle changes nothing in the repository.
        """
        self._end()
        self._thread.join(_LEAVING_SECONDS)

    def _end(self) -> None:
        with self._changed:
            self._next = None
            self._stop.set()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._stop.is_set())
                step, self._next = self._next, None
            if step is None:
                return
            try:
                self._push(step, self._stop)
                log.info("the state of step %d is pushed to %s", step, self._name)
            except Exception as error:  # training goes on, whatever happens here
                cause = error.__cause__ if isinstance(error, UploadError) and error.__cause__ else error
                log.warning(
                    "the state of step %d could not be pushed to %s (%s): training goes on, and a later push "
                    "makes up for it", step, self._name, reason(cause),
                )  # fmt: skip
