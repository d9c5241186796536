"""How long processes of this machine have been running."""

import os
import time
from pathlib import Path

_BEGUN_AT_IMPORT = time.time()
_commands: list[int] = []


def note_command() -> None:
    """Note that this process runs one command, so that all of its time is the command's."""
    _commands.append(os.getpid())


def command_age() -> float:
    """Return for how many seconds the command has been running; 0 where a Python program calls it."""
    return process_age() if os.getpid() in _commands else 0.0


def process_age() -> float:
    """Return for how many seconds this process has been running.

    Where the system does not tell, they are counted from the import of this file.
    """
    ticks = process_start(os.getpid())
    if ticks is None:
        return time.time() - _BEGUN_AT_IMPORT
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def process_start(pid: int) -> int | None:
    """Return when a process of this machine was started, in clock ticks since the machine was.

    A number of a process is used again after its end, but not together with the same start.

    Returns:
        None if there is no such process, or the system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(") ")[2].split()  # the name before the bracket may contain anything
    return None if state in "ZX" else int(fields[18])
