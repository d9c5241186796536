"""Readers run on malformed inputs, one after the other, and what came of each counted."""

import collections
import contextlib
import dataclasses
import os
import re
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flax_distil.core.errors import InputError

LIMIT_SECONDS = 10

_BESIDE = re.compile(
    r" examples/s\]|\? examples|\d+%\||^(INFO|WARNING|ERROR):flax_distil|^ *(rows|hours|kept|with) "
)
"""Lines of a bar that datasets draws, and of logs."""


@dataclasses.dataclass(frozen=True)
class Watched:
    """A folder, in which only some of the folders may change."""

    root: Path
    free: tuple[Path, ...]

    def entries(self) -> list[tuple[str, int, int, int]]:
        """Return path, kind, size and time of everything that may not change."""
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if Path(folder, name) not in self.free]
            for name in (*folders, *files):
                status = os.lstat(os.path.join(folder, name))
                size = 0 if name in folders else status.st_size
                changed = 0 if name in folders else status.st_mtime_ns
                found.append((os.path.join(folder, name), status.st_mode, size, changed))
        return sorted(found)


class Attempts:
    """Counts what came of malformed inputs: read, refused in one sentence, or a fault.

    Attributes:
        counts: ``{kind: {"read" | "refused" | "fault": number}}``.
        faults: what was wrong, by the name of the input.
        watched: folders in which an attempt changes nothing; None for no check.
    """

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.faults: dict[str, str] = {}
        self.watched: Watched | None = None
        self._capfd, self._addresses = capfd, list[Any]()

        def connect(this: socket.socket, address: Any) -> None:
            self._addresses.append(address)
            raise OSError("no address may be opened")

        for name in ("connect", "connect_ex"):
            monkeypatch.setattr(socket.socket, name, connect)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: connect(None, address))  # type: ignore[arg-type]

    def read(self, kind: str, name: str, reader: Callable[[], Any]) -> bool:
        """Run a reader, which may return or raise ``InputError``, in silence; say whether it returned."""
        return self._attempt(kind, name, reader) == "read"

    def run(
        self,
        kind: str,
        name: str,
        command: Callable[[], int],
        *,
        statuses: tuple[int, ...] = (0, 2),
        seconds: int = LIMIT_SECONDS,
    ) -> bool:
        """Run a command, which ends with 0, or with another status and one line; say whether it did all."""
        return self._attempt(kind, name, command, statuses=statuses, seconds=seconds) == "read"

    def _attempt(
        self,
        kind: str,
        name: str,
        call: Callable[[], Any],
        *,
        statuses: tuple[int, ...] | None = None,
        seconds: int = LIMIT_SECONDS,
    ) -> str:
        self._capfd.readouterr()
        self._addresses.clear()
        before = self.watched and self.watched.entries()
        try:
            with _time_limit(seconds):
                status = call()
            fault, refused = None, statuses is not None and status != 0
        except InputError as error:
            fault, refused = _sentence_fault(str(error)), True
        except (KeyboardInterrupt, pytest.fail.Exception):
            raise
        except BaseException:
            fault, refused = traceback.format_exc(limit=-4), False
        out, err = self._capfd.readouterr()
        if fault is None:
            fault = self._noise(out, err) if statuses is None else _command_fault(status, err, statuses)
        if self.watched is not None and before != self.watched.entries():
            fault = f"changed {sorted(set(self.watched.entries()) ^ set(before or ()))[:5]}; {fault}"
        if self._addresses:
            fault = f"opened {self._addresses}; {fault}"
        outcome = "fault" if fault else "refused" if refused else "read"
        self.counts[kind][outcome] += 1
        if fault:
            self.faults[name] = fault
        return outcome

    def _noise(self, out: str, err: str) -> str | None:
        return f"said {(out + err)[:500]!r}" if out or err else None

    def check(self) -> None:
        """Fail if there is a fault; print the counts."""
        print({kind: dict(counter) for kind, counter in sorted(self.counts.items())})
        assert not self.faults, f"{len(self.faults)} faults:\n" + "\n".join(
            f"--- {name}\n{fault}" for name, fault in list(self.faults.items())[:12]
        )


def _sentence_fault(message: str) -> str | None:
    """Say what is wrong with the sentence of an error: it is one line, of some words."""
    if not message.strip() or not message.isprintable() or len(message) > 2000:
        return f"the sentence is {message[:500]!r}"
    return None


def _command_fault(status: Any, err: str, statuses: tuple[int, ...]) -> str | None:
    if status not in statuses:
        return f"exit status {status}, standard error {err[:500]!r}"
    if status == 2:
        lines = [line for line in err.splitlines() if line and not _BESIDE.search(line)]
        if len(lines) != 1 or not lines[0].startswith("error: "):
            return f"standard error {err[:800]!r}"
        return _sentence_fault(lines[0])
    return f"standard error {err[:800]!r}" if "Traceback" in err or "panicked" in err else None


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
