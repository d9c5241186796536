"""All processes of a run stop at the same step, whichever of them is told to stop."""

import threading

from flax_distil.core.signals import Stage, current_stage, stop_reason


class StopPoint:
    """The place in a run where all processes stop.

    All processes pass the same places in the same order, and count them. When one is told to stop, each tells
    the others how far it has come, and is held there until it knows about all. They stop at the place behind
    the furthest, so none waits for another in a computation. This is what JAX's preemption service does with
    a SIGTERM; it would take the signal from Python, and knows neither SIGINT nor a second signal.

    Attributes:
        passed: Number of the places that this process has passed.
    """

    LEAVE = -1
    """Stands for the place of a process that has nothing to save: all leave at once then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.passed = 0
        self._last: int | None = None

    def pass_one(self) -> bool:
        """Pass the next place, and return whether all processes stop there."""
        with self._lock:
            self.passed += 1
            return self._last is not None and self.passed >= self._last

    def hold(self) -> int:
        """Hold the main thread at its next place until :meth:`decide`; return how many it has passed."""
        self._lock.acquire()
        return self.LEAVE if current_stage() is Stage.ANYWHERE else self.passed

    def decide(self, places: list[int]) -> bool:
        """Set the place to stop at from the numbers of all processes, and return whether there is one."""
        can_save = self.LEAVE not in places
        if can_save:
            self._last = max(places) + 1
        self._lock.release()
        return can_save


_point = StopPoint()
_is_shared = False


def share_stop_point() -> StopPoint:
    """Return the stop point of this process, where all stop from now on once the caller has decided it."""
    global _is_shared
    _is_shared = True
    return _point


def must_stop() -> bool:
    """Return whether the command stops here; all processes must ask at the same places, in the same order.

    It costs nothing while nothing stops. For work that processes do apart from each other, signals need not
    be asked for: they are raised.
    """
    decided = _point.pass_one()
    return decided if _is_shared else stop_reason() is not None


def places_passed() -> int:
    """Return how often this process has asked :func:`must_stop`."""
    return _point.passed
