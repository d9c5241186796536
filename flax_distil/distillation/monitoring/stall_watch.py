"""Tell where a training run that makes no progress is waiting."""

import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType, TracebackType

import jax

from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.parallel.preemption import places_passed
from flax_distil.storage.paths import AnyPath, write_whole

log = logging.getLogger(__name__)

_PLACES = {
    "start": "starting",
    "data": "waiting for data",
    "step": "waiting for the devices, perhaps for another process to take part in a computation",
    "save": "saving a checkpoint",
    "evaluation": "evaluating",
    "export": "exporting",
}
"""What a run is doing, by the cause for which its time is counted."""

_INNERMOST = 4


class StallWatch:
    """Warns from its own thread when nothing has changed for a while, and again after twice the time.

    It only reads what the run keeps anyway, and ends nothing. Use it as a context manager, in the thread that
    trains.

    Args:
        goodput: Knows what the run is doing, and since when.
        seconds: Time without progress after which it warns.
        folder: Receives ``stall-PROCESS.txt``, with the stacks of all threads.
    """

    def __init__(self, goodput: Goodput, *, seconds: float, folder: AnyPath):
        self._goodput, self._seconds, self._folder = goodput, seconds, folder
        self._watched = threading.get_ident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)

    def __enter__(self) -> "StallWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def _watch(self) -> None:
        seen, since, limit = self._progress(), time.monotonic(), self._seconds
        while not self._end.wait(min(limit / 4, 15.0)):
            now = time.monotonic()
            if (current := self._progress()) != seen:
                seen, since, limit = current, now, self._seconds
            elif now - since > limit:
                limit *= 2
                self._warn(now - since)

    def _progress(self) -> object:
        return self._goodput.cause, self._goodput.since, self._goodput.step, places_passed()

    def _warn(self, seconds: float) -> None:
        frames = sys._current_frames()
        log.warning(
            "no progress for %.3g minutes: process %d of %d is %s, after step %d was begun, in %s",
            seconds / 60, jax.process_index(), jax.process_count(),
            _place(self._goodput.cause, frames[self._watched]), self._goodput.step,
            _innermost(frames[self._watched]),
        )  # fmt: skip
        path = self._folder / f"stall-{jax.process_index()}.txt"
        try:
            write_whole(path, _stacks(frames))
        except OSError as error:
            log.warning("%s is not written: %s", path, error.strerror or error)


def _place(cause: str, frame: FrameType) -> str:
    names = [entry.name for entry in traceback.extract_stack(frame, limit=40)]
    return "compiling a program" if any("backend_compile" in name for name in names) else _PLACES[cause]


def _innermost(frame: FrameType) -> str:
    """Return the innermost calls, such as ``wait (threading.py:324)``, the innermost last."""
    entries = traceback.extract_stack(frame, limit=_INNERMOST)
    return " > ".join(f"{entry.name} ({Path(entry.filename).name}:{entry.lineno})" for entry in entries)


def _stacks(frames: dict[int, FrameType]) -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(number, number)}\n" + "".join(traceback.format_stack(frame))
        for number, frame in frames.items()
    ]
    return "\n".join(parts)
