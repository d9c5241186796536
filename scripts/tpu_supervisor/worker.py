"""What runs on each worker of a TPU: starts the command, keeps its log, tells how it ended.

The supervisor copies this file to ``~/.tpu_job`` and calls it over ssh. The command itself is detached from
ssh, so a connection may be lost, and a call may be repeated, without doing it harm. The standard library of
Python 3.8 suffices: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOG, STATUS, RUNNING, STARTED, SECRETS = (
    HERE / name for name in ("log", "status", "running.json", "started", "secrets.json")
)
MARK = "#tpu_job# "
"""Begins the one line of an answer that is not of the command's log."""
BLOCK = 1 << 20


def start(token: str) -> None:
    """Start the command of ``job.json`` unless it runs, or was started with this token already."""
    if running() is None and not (STARTED.exists() and STARTED.read_text() == token):
        for path in (STATUS, RUNNING):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with LOG.open("wb") as log:
            command = [sys.executable, str(HERE / "worker.py"), "run"]
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=Path.home(),
            )
        deadline = time.monotonic() + 60
        while not (RUNNING.exists() or STATUS.exists()) and time.monotonic() < deadline:
            time.sleep(0.05)
        write(STARTED, token)
    with contextlib.suppress(FileNotFoundError):
        SECRETS.unlink()


def run() -> None:
    """Run the command to its end (in the process that `start` detached) and write its exit status."""
    job = json.loads((HERE / "job.json").read_text())
    environment = {**os.environ, **job["environment"]}
    if SECRETS.exists():
        environment.update(json.loads(SECRETS.read_text()))
        SECRETS.unlink()
    environment["PATH"] = f"{HERE / 'venv' / 'bin'}:{environment.get('PATH', os.defpath)}"
    try:
        # The PATH that is searched is this process's own.
        os.environ["PATH"] = environment["PATH"]
        process = subprocess.Popen(job["command"], env=environment, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"error: {job['command'][0]} cannot be run: {error}", flush=True)
        write(STATUS, "127")
        return
    write(RUNNING, json.dumps({"runner": os.getpid(), "command": process.pid}))
    code = process.wait()
    write(STATUS, str(code if code >= 0 else 128 - code))


def poll(offset: int, seconds: float) -> None:
    """Print the log from a position in bytes, for some seconds or to the end, then one marked line."""
    deadline = time.monotonic() + seconds
    while True:
        over = running() is None  # asked before reading: what was written before the end is printed
        offset += show(offset, over)
        if over or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    print(MARK + json.dumps({"over": over, "offset": offset}), flush=True)


def show(offset: int, to_the_end: bool) -> int:
    """Print whole lines of the log; return their number of bytes."""
    shown = 0
    with LOG.open("rb") as log:
        log.seek(offset)
        while block := log.read(BLOCK):
            whole, at_end = block.rfind(b"\n") + 1, len(block) < BLOCK
            if to_the_end if at_end else not whole:
                whole = len(block)
            if not whole:
                break
            sys.stdout.buffer.write(block[:whole] + (b"" if block[whole - 1 : whole] == b"\n" else b"\n"))
            shown += whole
            log.seek(offset + shown)
    sys.stdout.buffer.flush()
    return shown


def state() -> None:
    """Print one marked line: host, whether the command is over, its exit status, the end of its log."""
    over = running() is None
    code = int(STATUS.read_text()) if over and STATUS.exists() else None
    end = LOG.read_bytes()[-2000:].decode(errors="replace") if LOG.exists() else ""
    answer = {"host": socket.gethostname(), "over": over, "code": code, "log": end}
    print(MARK + json.dumps(answer), flush=True)


def stop(seconds: float) -> None:
    """Ask the command to end (SIGTERM, on which it saves); kill it after some seconds."""
    job = running()
    if job is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(job["command"], signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while running() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    if running() is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job["runner"], signal.SIGKILL)


def running() -> dict | None:
    """Return the processes of the command; None where it is over, never started, or the host restarted."""
    if STATUS.exists() or not RUNNING.exists():
        return None
    job = json.loads(RUNNING.read_text())
    try:
        words = Path(f"/proc/{job['runner']}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return job if str(HERE / "worker.py").encode() in words else None


def write(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    beside = path.with_suffix(".partial")
    beside.write_text(text)
    beside.replace(path)


if __name__ == "__main__":
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "poll":
        poll(int(arguments[0]), float(arguments[1]))
    elif verb == "stop":
        stop(float(arguments[0]))
    elif verb == "start":
        start(arguments[0])
    else:
        {"run": run, "state": state}[verb]()
