"""SIGTERM and SIGINT end a command in good order, with exit status 75; a second signal ends it at once.

What a signal does depends on the stage of the command. By default it is raised as :class:`Interrupted` where
the main thread is, since every command keeps what it has finished. Training asks for it between its steps
instead, because it first has something to save. A thread ends the process where the main thread does not come
back from a library in time.
"""

import contextlib
import enum
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from flax_distil.core.errors import Interrupted

STOPPED = 75
"""Exit status (EX_TEMPFAIL): stopped before its end; finished work is kept, and the same command goes on."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE = signal.SIGURG  # ignored by default: it wakes the main thread when another thread asks to stop
_UNANSWERED_SECONDS = 5.0
_ENDING_SECONDS = 25.0
_SAME_SIGNAL_SECONDS = 0.5  # a launcher may signal a process and then its group


class Stage(enum.Enum):
    """What a signal interrupts."""

    ANYWHERE = "the command can be left where it is"
    BETWEEN_STEPS = "the command asks for signals where it can save its work"
    FINISHING = "the last results are being written: the command goes on for 25 s"


class _Stop:
    """What is known of a stop of the running command."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.stage = Stage.ANYWHERE
        self.is_raised = False
        self.deadline = math.inf
        self.received_at: float | None = None
        self.listeners: list[Callable[[str], None]] = []

    def receive(self, number: int) -> None:
        """Note a signal; the second one ends the process."""
        now = time.monotonic()
        if self.received_at is None:
            self.received_at = now
            self.request(signal.Signals(number).name)
        elif now - self.received_at > _SAME_SIGNAL_SECONDS:
            exit_now(128 + number)

    def request(self, reason: str) -> None:
        if self.reason is not None:
            return
        self.reason = reason
        self.set_deadline(_UNANSWERED_SECONDS)
        for listener in self.listeners:
            listener(reason)
        self.wake()

    def wake(self) -> None:
        main = threading.main_thread().ident
        if self.stage is Stage.ANYWHERE and main is not None and signal.getsignal(_WAKE) is _in_main_thread:
            signal.pthread_kill(main, _WAKE)

    def set_deadline(self, seconds: float) -> None:
        """Give the main thread so long, from now on, or the time of its stage."""
        seconds = {Stage.BETWEEN_STEPS: math.inf, Stage.FINISHING: _ENDING_SECONDS}.get(self.stage, seconds)
        self.deadline = time.monotonic() + seconds


_stop = _Stop()
_end_hooks: list[Callable[[int, str, BaseException | None], None]] = []


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGINT while the context is open; signals that are ignored stay ignored.

    In another thread than the main one nothing is handled.

    Raises:
        Interrupted: Where the main thread is, at :attr:`Stage.ANYWHERE`.
    """
    global _stop
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _stop = _stop, _Stop()
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, _WAKE)}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    outer_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # Python runs handlers in the main thread alone, which may be inside a library: a thread listens too.
    thread = threading.Thread(target=_listen, args=(reader, _stop), name="signals", daemon=True)
    thread.start()
    try:
        for number, handler in before.items():
            if number == _WAKE or handler is not signal.SIG_IGN:
                signal.signal(number, _in_main_thread)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(outer_fd)
        writer.close()
        thread.join()
        reader.close()
        _stop = outer


def enter_stage(stage: Stage) -> None:
    """Let signals do from now on what this stage says."""
    _stop.stage = stage
    if _stop.reason is not None and not _stop.is_raised:
        _stop.set_deadline(_ENDING_SECONDS)


def stop_reason() -> str | None:
    """Return what asked the command to stop, such as "SIGTERM"; None if nothing did."""
    return _stop.reason


def current_stage() -> Stage:
    """Return the stage of the running command."""
    return _stop.stage


def request_stop(reason: str, *, anywhere: bool = False) -> None:
    """Stop the command as a signal would; any thread may call this.

    Args:
        reason: What asks for it, such as "SIGTERM on process 1".
        anywhere: Leave the command where it is, at whatever stage.
    """
    stop = _stop
    if anywhere and stop.stage is not Stage.ANYWHERE:
        stop.stage = Stage.ANYWHERE
        stop.set_deadline(_UNANSWERED_SECONDS)
        stop.wake()
    stop.request(reason)


def interrupted(text: str) -> Interrupted:
    """Return the error with which a command ends once its work is saved; it has all the time it needs."""
    _stop.is_raised, _stop.deadline = True, math.inf
    return Interrupted(f"stopped by {_stop.reason}: {text}")


def on_stop(listener: Callable[[str], None]) -> None:
    """Call a function with the reason, in another thread, when the command is asked to stop."""
    _stop.listeners.append(listener)


def on_end(hook: Callable[[int, str, BaseException | None], None]) -> None:
    """Call a function before this process ends otherwise than by having done its work, see :func:`ended`."""
    _end_hooks.append(hook)


def ended(status: int, sentence: str, error: BaseException | None = None) -> int:
    """Tell whoever must know that this process ends, and return the status.

    Args:
        status: Exit status.
        sentence: Why.
        error: The error that ends it, where it is not explained by the sentence.
    """
    for hook in _end_hooks:
        hook(status, sentence, error)
    return status


def say(sentence: str) -> None:
    """Write a sentence to standard error from any thread, on a line of its own."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode(errors="replace"))


def exit_now(status: int) -> None:
    """End the process from any thread, without waiting for anything."""
    # Another thread may be inside a write that never returns.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(1)
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _in_main_thread(number: int, frame: object) -> None:
    stop = _stop
    reason = stop.reason if number == _WAKE else signal.Signals(number).name
    if reason is None or stop.stage is not Stage.ANYWHERE or stop.is_raised:
        return
    stop.is_raised, stop.deadline = True, time.monotonic() + _ENDING_SECONDS
    raise Interrupted(_left(stop.reason or reason))


def _listen(reader: socket.socket, stop: _Stop) -> None:
    reader.settimeout(0.5)
    while True:
        try:
            received = reader.recv(64)
        except TimeoutError:
            received = b"\0"
        if not received:
            return
        for number in received:
            if number in _SIGNALS:
                stop.receive(number)
        if time.monotonic() > stop.deadline:
            sentence = _left(str(stop.reason))
            say(sentence)
            exit_now(ended(STOPPED, sentence))


def _left(reason: str) -> str:
    return f"stopped by {reason}: what is finished is kept, and the same command goes on"
