"""Calls of ``gcloud``: output line by line, errors by kind, secrets masked, or only printed (dry run)."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tpu_supervisor.worker import MARK

NO_CAPACITY = re.compile(
    r"no more capacity|not enough resources|insufficient [\w ]*capacity|resource_exhausted|"
    r"resource_pool_exhausted|stockout|quota limit|quota_exceeded|quota [^\n]*exceeded|currently unavailable",
    re.IGNORECASE,
)
NO_QUOTA = re.compile(r"\blimit: 0\b", re.IGNORECASE)
NOT_FOUND = re.compile(r"not_found|not found|does not exist", re.IGNORECASE)


class GcloudError(Exception):
    """A call that failed; its text is what gcloud wrote."""


class NotFoundError(GcloudError):
    """What was asked about does not exist."""


class NoCapacityError(GcloudError):
    """There is no machine, or no quota, at the moment."""

    @property
    def for_ever(self) -> bool:
        """Whether the quota is zero, so that waiting does not help."""
        return NO_QUOTA.search(str(self)) is not None


class Log:
    """What the user sees: printed, and appended to a file, with the values of secrets masked."""

    def __init__(self, path: Path | None, secrets: dict[str, str]):
        self.file = path.open("a", encoding="utf-8") if path else None
        self.secrets = sorted((value for value in secrets.values() if value), key=len, reverse=True)
        self.lock = threading.Lock()

    def line(self, text: str) -> None:
        """Print one line of the command's log as it is, secrets aside."""
        for value in self.secrets:
            text = text.replace(value, "***")
        with self.lock:
            print(text, flush=True)
            if self.file:
                print(text, file=self.file, flush=True)

    def say(self, text: str) -> None:
        """Print one line of the supervisor's own."""
        self.line(f"[tpu_job {time.strftime('%H:%M:%S')}] {text}")


class Gcloud:
    """Runs ``gcloud``.

    Args:
        project: Project that is charged; by default that of gcloud's configuration.
        log: Where messages go.
    """

    def __init__(self, project: str | None, log: Log):
        self.options = ["--quiet", *([f"--project={project}"] if project else [])]
        self.log = log
        self.processes: set[subprocess.Popen] = set()

    def run(self, *words: str, seconds: float = 1800, on_line: Callable[[str], None] | None = None) -> str:
        """Run one command in a session of its own, so that Ctrl-C reaches the supervisor alone.

        Args:
            words: The command's words after ``gcloud``.
            seconds: Time after which it is ended and counts as failed.
            on_line: Called with each line of the output as it comes.

        Returns:
            The output.

        Raises:
            NotFoundError, NoCapacityError, GcloudError: It failed.
        """
        lines = []
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            process = subprocess.Popen(
                ["gcloud", *words, *self.options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            timer = threading.Timer(seconds, end, [process])
            timer.start()
            self.processes.add(process)
            try:
                for line in process.stdout:
                    lines.append(line)
                    if on_line:
                        on_line(line)
                code = process.wait()
            finally:
                timer.cancel()
                end(process)
                self.processes.discard(process)
            errors.seek(0)
            message = errors.read()[-2000:].strip()
        if code:
            raise error_of(message or f"gcloud {' '.join(words[:4])} ended with status {code}")
        return "".join(lines)

    def end_all(self) -> None:
        """End the calls that other threads wait for."""
        for process in tuple(self.processes):
            end(process)

    def show_file(self, name: str, text: str) -> None:
        """Show a file that is copied to the workers; only a dry run does."""


class DryRun(Gcloud):
    """Prints every command instead of running it, and answers as if all went well."""

    created = False

    def run(self, *words: str, seconds: float = 0, on_line: Callable[[str], None] | None = None) -> str:
        """Print a command; return what a successful one would."""
        self.log.line("$ " + shlex.join(["gcloud", *words, *self.options]))
        verb = words[3]
        if verb in ("create", "delete"):
            self.created = verb == "create"
        elif verb == "describe":
            if not self.created:
                raise NotFoundError("NOT_FOUND")
            state = "READY" if words[2] == "tpu-vm" else {"state": "ACTIVE"}
            return json.dumps({"state": state, "networkEndpoints": [{}]})
        elif on_line:
            on_line(MARK + json.dumps({"host": "worker", "over": True, "offset": 0, "code": 0, "log": ""}))
        return ""

    def show_file(self, name: str, text: str) -> None:
        """Print the content of a file that would be copied."""
        for line in text.splitlines():
            self.log.line(f"  {name}: {line}")


def error_of(message: str) -> GcloudError:
    """Return the error that a message of gcloud tells."""
    kind = GcloudError
    if NO_CAPACITY.search(message):
        kind = NoCapacityError
    elif NOT_FOUND.search(message):
        kind = NotFoundError
    return kind(message)


def end(process: subprocess.Popen) -> None:
    """End a process and those that it started, if it still runs."""
    if process.poll() is not None:
        return
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
