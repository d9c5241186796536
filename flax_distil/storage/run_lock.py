"""One run per output folder: a lock that names its holder and shows that it lives.

File systems that hosts share, and buckets, have no locks that end with their process. So the lock is a file
that its holder writes again every few seconds. Of a holder on the same machine it is known whether it lives;
of one on another machine, whether it writes.
"""

import contextlib
import getpass
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.process_age import process_start
from flax_distil.storage.paths import AnyPath, read_text, write_whole

log = logging.getLogger(__name__)

LOCK_NAME = "run.lock"

BEAT_SECONDS = 15.0
"""Seconds between two writes of a holder."""

STALE_SECONDS = 75.0
"""A lock that has not been written for so long is that of a run that was killed."""

_LOST_STATUS = 2


class RunLock:
    """The lock of an output folder; use it as a context manager.

    Args:
        folder: The folder; it exists when the lock is taken.

    Attributes:
        path: Path of the file.
    """

    def __init__(self, folder: AnyPath):
        self.path = folder / LOCK_NAME
        self._own = {
            "id": secrets.token_hex(8),
            "host": socket.gethostname(),
            "machine": _machine(),
            "process_id": os.getpid(),
            "process_start": process_start(os.getpid()),
            "user": _user(),
            "started": _time_text(),
        }
        self._dead: dict[str, Any] | None = None
        self._beats, self._ended = 0, threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Wait until it is known whether another run holds the lock; nothing is written.

        Raises:
            InputError: If another run does.
        """
        holder = self._read()
        if holder is not None:
            self._wait_for_death(holder)

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
            InputError: If another run holds it.
            OSError: If it cannot be written.
        """
        while not self._create():
            holder = self._read()
            if holder is None:  # given up, or damaged, in this moment
                self.path.unlink(missing_ok=True)
                continue
            self._wait_for_death(holder)
            log.info("run.lock of a run that was killed is replaced: %s", _described(holder))
            self._write()
            break
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError, InputError):  # it will be stale
            if self._is_own(self._read()):
                self.path.unlink()

    def _wait_for_death(self, holder: dict[str, Any]) -> None:
        """Return once a holder is known to be dead: at once if it was found so, and has not written since.

        Raises:
            InputError: If it lives.
        """
        if holder == self._dead:
            return
        if holder.get("machine") == self._own["machine"] and holder.get("process_start") is not None:
            if process_start(int(holder["process_id"])) == holder["process_start"]:
                raise self._refusal(holder)
            return
        # Clocks of machines differ, so what counts is whether it is written, not when it says it was.
        seen, begun = holder.get("beats"), time.monotonic()
        age = min(max(time.time() - float(holder.get("beat_at", 0.0)), 0.0), STALE_SECONDS)
        patience = max(STALE_SECONDS - age, 2 * BEAT_SECONDS)
        log.info(
            "run.lock is of %s: waiting up to %.0f s to learn whether it still runs",
            _described(holder),
            patience,
        )
        while time.monotonic() - begun < patience:
            time.sleep(min(1.0, BEAT_SECONDS / 4))
            now = self._read()
            if now is None or now.get("id") != holder.get("id"):
                return
            if now.get("beats") != seen:
                raise self._refusal(now)
        self._dead = holder

    def _refusal(self, holder: dict[str, Any]) -> InputError:
        return InputError(
            f"another run writes to output_dir {str(self.path.parent)!r}: {_described(holder)}; end it "
            "first, or choose another output_dir"
        )

    def _beat(self) -> None:
        """Write the lock again and again, and end the process if another run has taken it over.

        That happens only to a process that stood still for longer than :data:`STALE_SECONDS`. Nothing that it
        did from then on would fit what the other run has written.
        """
        while not self._ended.wait(min(1.0, BEAT_SECONDS) if self._beats <= 1 else BEAT_SECONDS):
            with contextlib.suppress(OSError, InputError):
                holder = self._read()
                if holder is not None and not self._is_own(holder):
                    print(
                        f"error: output_dir {str(self.path.parent)!r} was taken over, while this run stood "
                        f"still, by {_described(holder)}",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(_LOST_STATUS)
                self._write()

    def _content(self) -> str:
        self._beats += 1
        return json.dumps(self._own | {"beats": self._beats, "beat_at": round(time.time(), 3)}) + "\n"

    def _create(self) -> bool:
        """Write the lock if there is none, and return whether this did."""
        if not isinstance(self.path, Path):
            return self.path.create(self._content().encode())
        try:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(self._content())
        except FileExistsError:
            return False
        return True

    def _write(self) -> None:
        write_whole(self.path, self._content())

    def _read(self) -> dict[str, Any] | None:
        """Return the holder; None if there is no lock, or nothing that can be read in it."""
        for _ in range(2):  # a lock that is being created is empty for a moment
            try:
                found = json.loads(read_text(self.path))
            except FileNotFoundError:
                return None
            except ValueError:
                time.sleep(0.1)
                continue
            return found if isinstance(found, dict) else None
        return None

    def _is_own(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and holder.get("id") == self._own["id"]


def _machine() -> str:
    """Return what tells apart the sets of processes whose numbers can be looked up here."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def _time_text() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


def _described(holder: dict[str, Any]) -> str:
    return (
        f"process {holder.get('process_id')} of {holder.get('user')} on {holder.get('host')}, started "
        f"{holder.get('started')}"
    )
