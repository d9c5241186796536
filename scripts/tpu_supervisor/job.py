"""The command on the workers of a TPU: installed, started, followed, stopped, over ssh."""

import json
import os
import shlex
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tpu_supervisor.gcloud import Gcloud, GcloudError
from tpu_supervisor.machine import UNREACHABLE, Machine
from tpu_supervisor.package import FOLDER, Command, install_script
from tpu_supervisor.worker import MARK

KEEP_ALIVE = ("--ssh-flag=-oServerAliveInterval=15", "--ssh-flag=-oServerAliveCountMax=4")


class LostError(Exception):
    """The machine, or the way to it, is gone."""


@dataclass(frozen=True)
class Outcome:
    """How the command ended on one worker.

    Attributes:
        host: Name of the worker.
        code: Exit status; None if it was lost with its host, or had to be killed.
        log: End of its log.
    """

    host: str
    code: int | None
    log: str


class Job:
    """Runs a command on all workers.

    Args:
        gcloud: Runs the commands.
        machine: The TPU.
        command: What to run.
        poll_seconds: Seconds for which one connection follows the log.
        lost_seconds: Seconds without an answer after which a machine that is said to be ready counts as lost.
        all_logs: Whether to follow the logs of all workers, not of the first alone.
        check_time: Called again and again; raises where the time is over.
    """

    def __init__(
        self,
        gcloud: Gcloud,
        machine: Machine,
        command: Command,
        poll_seconds: float,
        lost_seconds: float,
        all_logs: bool,
        check_time: Callable[[], None],
    ):
        self.gcloud, self.machine, self.command, self.check_time = gcloud, machine, command, check_time
        self.poll_seconds, self.lost_seconds, self.all_logs = poll_seconds, lost_seconds, all_logs
        self.starts, self.workers = 0, 1
        self.token = os.urandom(4).hex()
        self.halted = threading.Event()

    def install(self) -> None:
        """Copy what is needed to all workers and install it there.

        Raises:
            GcloudError: The installation failed twice.
            LostError: The machine is gone.
        """
        script, archive = install_script(self.command)
        self._insist(lambda: self._ssh("all", f"mkdir -p -m 700 {FOLDER}"))
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(__file__).with_name("worker.py"), Path(folder, "install.sh")]
            files[1].write_text(script)
            self.gcloud.show_file("install.sh", script)
            if archive is not None:
                files.append(Path(folder, archive[0]))
                files[2].write_bytes(archive[1])
            self._insist(lambda: self._copy(files))
        install = f"bash {FOLDER}/install.sh 2>&1"
        try:
            self._ssh("all", install, on_line=self._reader("", []))
        except GcloudError as error:
            self._check_there(time.monotonic(), error)
            self.gcloud.log.say(f"the installation failed and is tried once more: {error}")
            self._ssh("all", install, on_line=self._reader("", []))

    def start(self) -> None:
        """Start the command on all workers, detached from this machine.

        Raises:
            LostError: The machine is gone.
        """
        self.starts += 1
        self.workers = self.machine.workers()
        job = {"command": list(self.command.words), "environment": self.command.environment}
        with tempfile.TemporaryDirectory() as folder:  # only its owner may enter it
            files = [Path(folder, "job.json"), Path(folder, "secrets.json")]
            for path, content in zip(files, (job, self.command.secrets), strict=True):
                path.touch(mode=0o600)
                path.write_text(json.dumps(content))
            self.gcloud.show_file("job.json", json.dumps(job))
            self.gcloud.show_file("secrets.json", json.dumps(dict.fromkeys(self.command.secrets, "***")))
            self._insist(lambda: self._copy(files))
        self._insist(lambda: self._worker("all", "start", f"{self.token}-{self.starts}"))

    def follow(self) -> None:
        """Print the log as it is written, until the command is over on the workers that are followed.

        Raises:
            LostError: The machine is gone.
        """
        workers = range(self.workers if self.all_logs else 1)
        if len(workers) == 1:
            self._follow(0, "")
            return
        self.halted.clear()
        with ThreadPoolExecutor(len(workers)) as threads:
            try:
                for done in [threads.submit(self._follow, worker, f"[{worker}] ") for worker in workers]:
                    done.result()
            finally:
                self.halted.set()
                self.gcloud.end_all()

    def outcomes(self, patience: float = 300) -> list[Outcome]:
        """Wait until the command is over on all workers, kill it where it is not, and return how it ended.

        Raises:
            LostError: The machine is gone.
        """
        deadline, stopped = time.monotonic() + patience, False
        while True:
            states = self._states()
            if all(state["over"] for state in states):
                return [Outcome(state["host"], state["code"], state["log"]) for state in states]
            if time.monotonic() > deadline and not stopped:
                stopped = True
                self.gcloud.log.say("some workers did not end with the others: their commands are stopped")
                self.stop(30)
            time.sleep(min(5, self.poll_seconds))

    def stop(self, seconds: float = 60) -> None:
        """Send SIGTERM, on which the command saves and ends; kill it where that takes longer."""
        try:
            self._worker("all", "stop", f"{seconds:g}", seconds=seconds + 300)
        except GcloudError as error:
            self.gcloud.log.say(f"the command could not be stopped: {error}")

    def _follow(self, worker: int, prefix: str) -> None:
        offset, answered = 0, time.monotonic()
        while not self.halted.is_set():
            self.check_time()
            marks: list[dict] = []
            try:
                self._worker(
                    str(worker), "poll", str(offset), f"{self.poll_seconds:g}",
                    on_line=self._reader(prefix, marks), seconds=self.poll_seconds + 300,
                )  # fmt: skip
            except GcloudError as error:
                self._check_there(answered, error)
            if marks:
                answered, offset = time.monotonic(), marks[0]["offset"]
                if marks[0]["over"]:
                    return
            else:
                time.sleep(min(5, self.poll_seconds))

    def _states(self) -> list[dict]:
        answered = time.monotonic()
        while True:
            marks: list[dict] = []
            try:
                self._worker("all", "state", on_line=self._reader("", marks), seconds=300)
            except GcloudError as error:
                self._check_there(answered, error)
            if len(marks) >= self.workers:
                return marks
            time.sleep(min(5, self.poll_seconds))

    def _insist(self, action: Callable[[], None]) -> None:
        answered = time.monotonic()
        while True:
            try:
                return action()
            except GcloudError as error:
                self._check_there(answered, error)
                time.sleep(min(5, self.poll_seconds))

    def _check_there(self, answered: float, error: GcloudError) -> None:
        """Raise where the machine is not ready or was silent for long, unless Google is out of reach."""
        self.check_time()
        state = self.machine.state()
        if state not in ("READY", UNREACHABLE):
            raise LostError(f"the TPU is {state}")
        if state == "READY" and time.monotonic() - answered > self.lost_seconds:
            raise LostError(f"no worker answered for {self.lost_seconds / 60:g} minutes: {error}")

    def _reader(self, prefix: str, marks: list[dict]) -> Callable[[str], None]:
        def read(line: str) -> None:
            if line.startswith(MARK):
                marks.append(json.loads(line[len(MARK) :]))
            else:
                self.gcloud.log.line(prefix + line.rstrip("\n"))

        return read

    def _worker(self, worker: str, *words: str, on_line=None, seconds: float = 600) -> None:
        self._ssh(
            worker, shlex.join(["python3", f"{FOLDER}/worker.py", *words]), on_line=on_line, seconds=seconds
        )

    def _ssh(self, worker: str, command: str, on_line=None, seconds: float = 3600) -> None:
        name, zone = self.machine.wanted.name, f"--zone={self.machine.zone}"
        words = (name, zone, f"--worker={worker}", *KEEP_ALIVE, f"--command={command}")
        self.gcloud.run("compute", "tpus", "tpu-vm", "ssh", *words, on_line=on_line, seconds=seconds)

    def _copy(self, files: list[Path]) -> None:
        name, zone = self.machine.wanted.name, f"--zone={self.machine.zone}"
        words = (*map(str, files), f"{name}:{FOLDER}/", zone, "--worker=all")
        self.gcloud.run("compute", "tpus", "tpu-vm", "scp", *words)
