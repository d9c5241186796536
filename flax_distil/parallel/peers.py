"""Know whether the other processes of a run are there, and end in good order when one is not.

A thread of every process tells process 0 that it is alive, and reads what the others announce: that one was
told to stop, has failed, or is silent. It uses the key-value store that JAX keeps in process 0. JAX has
heartbeats too, but ends a process with an abort and a trace of C++ functions; ours are quicker.
"""

import atexit
import contextlib
import ctypes
import functools
import json
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
from jax._src.lib import _jax as jax_bindings

from flax_distil.core.signals import STOPPED, exit_now, on_end, on_stop, request_stop, say
from flax_distil.parallel.preemption import StopPoint, share_stop_point

JAX_LATER_SECONDS = 60
"""So much later than ours are the heartbeats of JAX missed."""

_PREFIX = "flax_distil"
_PATIENCE_SECONDS = 20.0  # for the others to read what process 0, who keeps it, announced
_GRACE_SECONDS = 2.0  # a failure of one is often told to all, who then end by themselves


class Peers:
    """The other processes, as this one knows them.

    Args:
        client: JAX's client of the key-value store.
        number: Number of this process.
        count: Number of all processes.
        timeout: Seconds without a sign of life after which a process is given up.
    """

    def __init__(self, client: Any, *, number: int, count: int, timeout: float):
        self._client, self._number, self._count, self._timeout = client, number, count, timeout
        self._period = min(1.0, timeout / 10)
        self._answered = time.monotonic()
        self._signs: dict[int, tuple[str, float]] = {}  # last sign of life of each, and when it came
        self._stop_point: StopPoint | None = None
        self._left: set[int] = set()  # ended, and said so
        self._lost: set[int] = set()  # ended without a word
        self._is_held = self._is_decided = self._is_ending = False

    def start(self) -> None:
        """Start the threads; they end with the process."""
        self._stop_point = share_stop_point()
        for function in (self._talk, self._watch):
            threading.Thread(target=function, name=function.__name__, daemon=True).start()
        on_stop(lambda reason: self._announce("stop", reason))
        on_end(self._end)
        atexit.register(self._finish)

    def coordinator_is_gone(self) -> bool:
        """Wait for the next answer of process 0, and return whether there is none."""
        time.sleep(3 * self._period)
        return self._number != 0 and time.monotonic() - self._answered > 2 * self._period

    def _name(self, number: int) -> str:
        host = self._signs.get(number, ("", 0.0))[0].partition(" ")[2]
        return f"process {number} of {self._count}" + (f" ({host})" if host else "")

    def _set(self, key: str, value: str) -> None:
        self._client.key_value_set(f"{_PREFIX}/{key}", value, allow_overwrite=True)

    def _get_all(self, folder: str) -> dict[str, str]:
        """Return the entries of a folder by name."""
        found = self._client.key_value_dir_get(f"{_PREFIX}/{folder}/")
        return {key.rpartition(f"{folder}/")[2]: value for key, value in found}

    def _announce(self, kind: str, content: Any) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._set(f"news/{kind}/{self._number}", json.dumps(content))

    def _talk(self) -> None:
        """Give signs of life, read the news, and in process 0 look who is silent."""
        host, sign = socket.gethostname(), 0
        while not self._is_ending:
            try:
                self._set(f"signs/{self._number}", f"{sign} {host}")
                self._note_signs(self._get_all("signs"))
                self._read(self._get_all("news"))
                self._answered = time.monotonic()
            except jax.errors.JaxRuntimeError:  # the watching thread counts the time
                pass
            sign += 1
            time.sleep(0.1 if self._is_held and not self._is_decided else self._period)

    def _note_signs(self, signs: dict[str, str]) -> None:
        now = time.monotonic()
        for number in range(self._count):
            sign = signs.get(str(number), "")
            known, _ = self._signs.get(number, (None, 0.0))
            if sign != known:
                self._signs[number] = sign, now
        if self._number == 0:
            for number, (_, since) in self._signs.items():
                # One that ended with a word is waited for longer: the others act on its word.
                if number and now - since > self._timeout * (3 if number in self._left else 1):
                    self._announce("lost", {"number": number})
                    self._lose(number)

    def _watch(self) -> None:
        """Look whether process 0 answers; a call to one that is frozen never returns."""
        while self._number and not self._is_ending:
            time.sleep(self._period)
            if time.monotonic() - self._answered > self._timeout:
                self._lose(0)

    def _lose(self, number: int) -> None:
        self._lost.add(number)
        self._leave(STOPPED, f"stopped: {self.loss(number)}")

    def loss(self, number: int) -> str:
        """Return the sentence for a process that is gone."""
        return (
            f"{self._name(number)} is gone (killed, or its machine is lost, or it gave no sign of life for "
            f"{self._timeout:g} s): start all processes again, and the same command goes on"
        )

    def _read(self, news: dict[str, str]) -> None:
        """Do what the news of the others ask for."""
        parsed = {tuple(name.split("/")): json.loads(value) for name, value in news.items()}
        own = str(self._number)
        self._left = {int(number) for kind, number in parsed if kind == "left"}
        for (kind, number), content in parsed.items():
            if kind == "lost":
                self._lose(content["number"])
            if kind == "failed" and number != own:
                time.sleep(_GRACE_SECONDS)
                sentence = f"{self._name(int(number))} has failed: {content['sentence']}"
                self._leave(content["status"], f"error: {sentence}")
        stops = {number: reason for (kind, number), reason in parsed.items() if kind == "stop"}
        if stops and not self._is_decided:
            number = min(stops, key=int)
            reason = stops.get(own) or f"{stops[number]} on {self._name(int(number))}"
            left = dict.fromkeys(self._left, StopPoint.LEAVE)
            self._agree(reason, left | {int(n): at for (kind, n), at in parsed.items() if kind == "at"})

    def _agree(self, reason: str, places: dict[int, int]) -> None:
        """Agree with all where to stop; called again and again until all have told how far they are."""
        assert self._stop_point is not None
        if not self._is_held:
            self._is_held = True
            self._announce("at", self._stop_point.hold())
        elif len(places) == self._count:
            self._is_decided = True
            request_stop(reason, anywhere=not self._stop_point.decide(list(places.values())))

    def _end(self, status: int, sentence: str, error: BaseException | None) -> None:
        """End this process before its work is done, without waiting for the others as JAX would."""
        if error is not None and "RESOURCE_EXHAUSTED" not in sentence and _is_of_jax(error):
            # A computation with the others failed, perhaps because one is gone: the thread finds out.
            time.sleep(self._timeout + 5 * self._period)
        if error is not None:
            traceback.print_exception(error)
        if status == STOPPED:
            self._announce("stop", sentence.partition(": ")[0].removeprefix("stopped by "))
        else:
            self._announce("failed", {"status": status, "sentence": sentence})
        self._leave(status)

    def _leave(self, status: int, sentence: str = "") -> None:
        """End this process; process 0, on which the others depend, lets them go first."""
        if sentence:
            say(sentence)
        self._is_ending = True
        if 0 not in self._lost:
            self._announce("left", None)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._number == 0 and time.monotonic() < deadline and not self._all_left():
            time.sleep(self._period / 4)
        exit_now(status)

    def _all_left(self) -> bool:
        try:
            left = [name for name in self._get_all("news") if name.startswith("left/")]
        except jax.errors.JaxRuntimeError:
            return True  # process 0 has gone already
        return len(left) + len(self._lost) >= self._count

    def _finish(self) -> None:
        """The work is done: wait for the others here, since JAX would notice late if one of them dies."""
        if (error := getattr(sys, "last_value", None)) is not None:  # ends the program, and is printed
            self._end(1, str(error) or repr(error), None)
        self._announce("left", None)
        while not self._all_left():
            time.sleep(self._period / 4)
        self._is_ending = True


def _is_of_jax(error: BaseException | None) -> bool:
    """Whether a computation failed; JAX raises such errors of its runtime under several names."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) or re.match("[A-Z]+(_[A-Z]+)*: ", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


_ABORT_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_int)
_peers: Peers | None = None


def watch_peers(client: Any, *, number: int, count: int, timeout: float) -> None:
    """Watch the other processes of a run from now on, see :class:`Peers`."""
    global _peers
    _peers = Peers(client, number=number, count=count, timeout=timeout)
    _peers.start()


@_ABORT_TYPE
def _on_abort(_: int) -> None:
    _explain_loss()


def _explain_loss(*_: Any) -> None:
    """End with a sentence if process 0 is gone."""
    if _peers is not None and _peers.coordinator_is_gone():
        say(f"stopped: {_peers.loss(0)}")
        exit_now(STOPPED)


@contextlib.contextmanager
def explained_aborts() -> Iterator[None]:
    """Connect to JAX's service here; where JAX ends the process because process 0 is gone, it says so.

    JAX notices at once when its connection to process 0 breaks, and aborts the process. The function that it
    would call instead gets an argument that the bindings of this JAX cannot convert, and so it aborts without
    calling it, but also without a trace of C++ functions. Python's own handlers of SIGABRT run too late.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, _ABORT_TYPE], ctypes.c_void_p
    library.signal(int(signal.SIGABRT), _on_abort)
    connect = jax_bindings.get_distributed_runtime_client
    jax_bindings.get_distributed_runtime_client = functools.partial(
        connect, missed_heartbeat_callback=_explain_loss
    )
    try:
        yield
    finally:
        jax_bindings.get_distributed_runtime_client = connect
