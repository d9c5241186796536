"""Wall time of a training run by cause, and how much of it went into steps that count."""

import contextlib
import copy
import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from flax_distil.core.errors import InputError
from flax_distil.distillation.monitoring.goodput_record import CAUSES, Attempt, GoodputRecord, Seconds
from flax_distil.storage.background_upload import BackgroundUpload
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import AnyPath

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_WRITES = 10.0
_COMPILATION = "/jax/core/compile/"

_ENDS_KEPT = 4


class Goodput:
    """Divides the wall time of a process between causes; each moment belongs to one of them.

    A cause within another one is subtracted from it. Compilations are found wherever they happen. All
    methods belong to the thread that made the object; other threads may read :attr:`cause` and
    :attr:`since`.

    Example::

        with goodput.during("evaluation"):
            evaluate()

    Args:
        age: Seconds that passed before, and count as "start".
    """

    def __init__(self, *, age: float = 0.0):
        self._begun_at, self._begun = time.time() - age, time.perf_counter() - age
        self._mark = self._begun
        self._seconds: Seconds = dict.fromkeys(CAUSES, 0.0)
        self._causes = ["start"]
        self._compiled: list[tuple[float, float]] = []
        self._devices = _DeviceClock()
        self._thread = threading.get_ident()
        self._record: GoodputRecord | None = None
        self._attempt = self._seen = Attempt(started=self._begun_at)
        self._upload: BackgroundUpload | None = None
        self._written = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._note_compilation)

    @property
    def cause(self) -> str:
        """What the process is doing now."""
        return self._causes[-1]

    @property
    def since(self) -> float:
        """When it began to, as ``time.perf_counter`` tells it."""
        return self._mark

    @property
    def step(self) -> int:
        """Number of the last step that was dispatched."""
        return self._attempt.last_step

    @contextlib.contextmanager
    def during(self, cause: str) -> Iterator[None]:
        """Count the time of the body for a cause, one of :data:`CAUSES`."""
        assert cause in CAUSES, cause
        self._count()
        self._causes.append(cause)
        try:
            yield
        finally:
            self._count()
            self._causes.pop()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the body for "data", except while the devices run steps dispatched before."""
        begun = time.perf_counter()
        with self.during("data"):
            yield
        idle_since = self._devices.idle_since()
        busy_until = self._mark if idle_since is None else idle_since
        self._move(min(max(busy_until - begun, 0.0), self._mark - begun), "data", "step")

    def open(self, folder: AnyPath | None) -> None:
        """Continue the record of the run's earlier attempts.

        Args:
            folder: The ``output_dir`` of the run; None on processes that write nothing.
        """
        self._record = None if folder is None else GoodputRecord.read(folder)
        if isinstance(folder, BucketPath):  # a request may be repeated for minutes
            self._upload = BackgroundUpload(self._write_record, name="goodput")
        self.write()

    def begin_steps(self, first_step: int) -> None:
        """Note that steps begin after ``first_step``; what earlier attempts did beyond it is lost.

        From now on time is counted for "step" where nothing else is said.
        """
        self._count()
        self._causes[0] = "step"
        self._attempt.first_step = self._attempt.last_step = first_step
        if self._record is not None:
            self._record.lose_after(first_step)
        self.write()

    def end_steps(self) -> None:
        """Note that the last step is done; the rest is counted for "export"."""
        self._count()
        self._causes[0] = "export"

    def dispatched(self, step: int, result: Any) -> None:
        """Note that a step was dispatched.

        Args:
            step: Number of the step.
            result: An array that the step computes, and that no other step uses up.
        """
        self._devices.dispatched(step, result)
        self._attempt.last_step = step
        if time.perf_counter() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    def end_of(self, step: int) -> float | None:
        """Return when the devices finished one of the last steps, as ``time.perf_counter`` tells it.

        None if they have not, or it is longer ago than a few steps.
        """
        return self._devices.ends.get(step)

    def saved(self, step: int) -> None:
        """Note that a checkpoint holds what was done up to a step."""
        self._attempt.saves[step] = self.seconds()
        self.write()

    def seconds(self) -> Seconds:
        """Return the seconds of this process by cause; their sum is its age."""
        self._count()
        return dict(self._seconds)

    def write(self) -> None:
        """Write ``goodput.json``; a failure is logged, and ends nothing."""
        self._attempt.seconds = self.seconds()
        if self._devices.first_end is not None:
            self._attempt.seconds_to_first_step = self._devices.first_end - self._begun
        self._seen, self._written = copy.deepcopy(self._attempt), self._mark
        with self._failures_logged():
            if self._upload is not None:
                self._upload.changed()
            else:
                self._write_record()

    def close(self) -> None:
        """Stop measuring, write the record, and log the shares of the causes over all attempts."""
        jax.monitoring.unregister_event_duration_listener(self._note_compilation)
        self._devices.close()
        self.write()
        if self._upload is not None:
            with self._failures_logged():
                self._upload.close()
        if self._record is not None:
            log.info("%s", self._record.summary(self._attempt))

    def _write_record(self) -> None:
        if self._record is not None:
            self._record.write(self._seen)

    @contextlib.contextmanager
    def _failures_logged(self) -> Iterator[None]:
        try:
            yield
        except (OSError, InputError) as error:
            log.warning("goodput.json is not written: %s", getattr(error, "strerror", None) or error)

    def _count(self) -> None:
        now = time.perf_counter()
        self._seconds[self._causes[-1]] += now - self._mark
        self._mark = now

    def _move(self, seconds: float, source: str, target: str) -> None:
        seconds = min(seconds, self._seconds[source])
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def _note_compilation(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Count a compilation that has just ended; one may contain others, which have ended before."""
        if not event.startswith(_COMPILATION) or threading.get_ident() != self._thread:
            return
        self._count()
        begun = self._mark - duration_secs
        self._compiled = [part for part in self._compiled if part[0] > begun]
        new = max(duration_secs - sum(length for _, length in self._compiled), 0.0)
        self._compiled.append((self._mark, new))
        self._move(new, self._causes[-1], "compile")


class _DeviceClock:
    """Tells since when the devices have had nothing to do; a thread waits for what was dispatched."""

    def __init__(self) -> None:
        self._results: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dispatched = self._finished = 0
        self._last_end = 0.0
        self.first_end: float | None = None
        self.ends: dict[int, float] = {}

    def dispatched(self, step: int, result: Any) -> None:
        if self._thread is None:
            # A thread that waits for a device that hangs must not keep the process from its end.
            self._thread = threading.Thread(target=self._wait, name="device-clock", daemon=True)
            self._thread.start()
        self._dispatched += 1
        self._results.put((step, result))

    def idle_since(self) -> float | None:
        """Return when the last step ended, as ``time.perf_counter`` tells it; None while one is running."""
        return self._last_end if self._finished == self._dispatched else None

    def close(self) -> None:
        self._results.put(None)

    def _wait(self) -> None:
        while (dispatched := self._results.get()) is not None:
            step, result = dispatched
            with contextlib.suppress(Exception):  # it is raised where the result is used
                jax.block_until_ready(result)
            self._last_end = time.perf_counter()
            self.ends = {**dict(list(self.ends.items())[-_ENDS_KEPT:]), step: self._last_end}
            self.first_end = self.first_end or self._last_end
            self._finished += 1
