"""Scalars for TensorBoard, written at once: a full disk neither ends a thread nor fills a queue."""

import time
from collections.abc import Mapping
from pathlib import Path

_FLUSH_SECONDS = 10.0


class ScalarWriter:
    """Appends scalars to a new file of events in a folder."""

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        """Create the file.

        Args:
            folder: Folder of the files of a run, created if absent.
            purge_step: First step whose scalars in earlier files are to be forgotten.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import Summary, scalar

        self._event, self._summary, self._scalar = Event, Summary, scalar
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._flushed = 0.0
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=purge_step, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the scalars of a step; they are on the disk some seconds later.

        Raises:
            OSError: If they cannot be written.
        """
        summary = self._summary(value=[self._scalar(*item).value[0] for item in values.items()])
        self._writer.write_event(self._event(summary=summary, step=step, wall_time=time.time()))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: If it cannot be written.
        """
        self._writer.close()
