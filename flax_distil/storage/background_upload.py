"""Uploads in the background of what keeps changing, because objects of a bucket cannot be appended to."""

import threading
import time
from collections.abc import Callable

SHORTEST_PAUSE_SECONDS = 2.0
"""Minimum time between two uploads; buckets limit how often an object is replaced."""

PAUSE_FACTOR = 20.0
"""A pause is at least this many times as long as the upload before it took."""


class BackgroundUpload:
    """Calls a function in a thread whenever something has changed, but not too often.

    A killed process loses what changed since the last call: a few seconds of work.

    Args:
        upload: Function that uploads everything that it finds changed.
        name: Name of the thread.
    """

    def __init__(self, upload: Callable[[], None], *, name: str):
        self._upload = upload
        self._wake, self._stop = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Have it uploaded soon.

        Raises:
            StorageError: If an earlier upload failed.
        """
        if self._error is not None:
            raise self._error
        self._wake.set()

    def close(self) -> None:
        """Upload what has changed, and end the thread.

        Raises:
            StorageError: If this or an earlier upload failed.
        """
        self._stop.set()
        self._wake.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            self._wake.wait()
            stops = self._stop.is_set()  # read first: what changed before it was set is still uploaded
            self._wake.clear()
            started = time.monotonic()
            try:
                self._upload()
            except BaseException as error:
                self._error = error
                return
            if stops:
                return
            self._stop.wait(max(SHORTEST_PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - started)))
