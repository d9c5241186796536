"""The loop: a machine, the command on it, and what follows from how it ended."""

import signal
import time
from dataclasses import dataclass

from tpu_supervisor.gcloud import GcloudError, Log, NoCapacityError
from tpu_supervisor.job import Job, LostError, Outcome
from tpu_supervisor.machine import MISSING, UNREACHABLE, Machine

TRY_AGAIN = 75
"""Exit status with which a command says: stopped before its end, all is saved, the same command goes on."""
KILLED = (128 + signal.SIGKILL, 128 + signal.SIGTERM)


class StopError(Exception):
    """The supervisor gives up.

    Args:
        message: Why.
        code: Exit status that it ends with.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


@dataclass
class Limits:
    """When to give up.

    Attributes:
        max_restarts: How often the command is started again, on the same machine or another.
        max_hours: Hours from the start of the supervisor, waiting included; no limit if 0.
        retry_seconds: First pause where no zone has a machine; it doubles up to 20 times that.
    """

    max_restarts: int
    max_hours: float
    retry_seconds: float

    def __post_init__(self):
        self.started = time.monotonic()

    def check_time(self) -> None:
        """Raise `StopError` after the last hour."""
        if self.max_hours and time.monotonic() - self.started > self.max_hours * 3600:
            raise StopError(f"the {self.max_hours:g} hours of --max_hours are over", TRY_AGAIN)


class Supervisor:
    """Brings a command to its end on machines that may be taken away.

    Args:
        log: Where messages go.
        machine: The TPU.
        job: The command.
        zones: Zones, the best first.
        limits: When to give up.
    """

    def __init__(self, log: Log, machine: Machine, job: Job, zones: list[str], limits: Limits):
        self.log, self.machine, self.job, self.zones, self.limits = log, machine, job, zones, limits
        self.restarts = 0

    def find(self, reuse: bool) -> None:
        """Look whether a machine of that name exists, which is used again only where that was asked for.

        Raises:
            StopError: It exists and must not be used, or Google cannot be asked.
        """
        for zone in self.zones:
            self.machine.zone = zone
            state = self.machine.state()
            if state == UNREACHABLE or (state != MISSING and not reuse):
                self.machine.zone = None
                name = self.machine.wanted.name
                if state == UNREACHABLE:
                    raise StopError(f"gcloud cannot ask for TPUs in {zone}: {self.machine.trouble}", 2)
                raise StopError(
                    f"a TPU named {name} exists in {zone} ({state}): "
                    "give another --name, or --reuse to go on with it",
                    2,
                )
            if state != MISSING:
                return self.take_over(zone, state)
        self.machine.zone = None
        return None

    def take_over(self, zone: str, state: str) -> None:
        """Wait for a machine, or a request in the queue, that exists; delete it where it was lost."""
        self.log.say(f"using the TPU {self.machine.wanted.name} in {zone}, which is {state}")
        try:
            self.machine.wait_until_ready(self.limits.check_time)
        except NoCapacityError as error:
            self.log.say(f"it cannot be used: {error}")
            self.machine.delete()

    def run(self) -> None:
        """Run the command to its end.

        Raises:
            StopError: It failed, or a limit is reached.
            NotDeletedError: A machine that was lost may still exist.
        """
        installed = False
        while True:
            try:
                if self.machine.zone is None:
                    installed = False
                    self.obtain()
                if not installed:
                    self.install()
                    installed = True
                self.job.start()
                self.job.follow()
                outcomes = self.job.outcomes()
                if all(outcome.code == 0 for outcome in outcomes):
                    return
                self.judge(outcomes)
                reason = "the command stopped before its end"
                lost = self.machine.state() not in ("READY", UNREACHABLE)
            except LostError as error:
                reason, lost = str(error), True
            self.count_restart(reason)
            if lost:
                self.machine.delete()

    def obtain(self) -> None:
        """Create a machine in the first zone that has one; wait where none has."""
        pause, hopeless = self.limits.retry_seconds, set()
        while True:
            for zone in self.zones:
                self.limits.check_time()
                self.log.say(f"asking for a {self.machine.wanted.accelerator_type} in {zone}")
                try:
                    self.machine.create(zone)
                    return self.machine.wait_until_ready(self.limits.check_time)
                except NoCapacityError as error:
                    self.log.say(f"none in {zone}: {error}")
                    hopeless |= {zone} if error.for_ever else set()
                except GcloudError as error:
                    self.machine.delete()
                    raise StopError(f"no TPU could be created in {zone}: {error}", 1) from error
                self.machine.delete()
            if hopeless == set(self.zones):
                raise StopError(f"the project has no quota for this TPU in {', '.join(self.zones)}", 1)
            self.log.say(f"no zone has one; the next try is in {pause:g} seconds")
            time.sleep(pause)
            pause = min(2 * pause, 20 * self.limits.retry_seconds)

    def install(self) -> None:
        """Install the package on all workers."""
        self.log.say(f"the TPU is ready in {self.machine.zone}; installing")
        try:
            self.job.install()
        except GcloudError as error:
            raise StopError(f"the installation failed: {error}", 1) from error

    def judge(self, outcomes: list[Outcome]) -> None:
        """Raise `StopError` where the command failed by itself: not on a machine that is being taken away."""
        failed = [outcome for outcome in outcomes if outcome.code not in (0, TRY_AGAIN, None)]
        if not failed or not self.stays(patient=all(outcome.code in KILLED for outcome in failed)):
            return
        for outcome in failed:
            self.log.say(f"worker {outcome.host} ended with status {outcome.code}; its last lines:")
            for line in outcome.log.splitlines()[-15:]:
                self.log.line(f"  {line}")
        raise StopError(f"the command failed with status {failed[0].code}", failed[0].code or 1)

    def stays(self, patient: bool) -> bool:
        """Return whether the machine is still ready; wait a little where a preemption may be under way."""
        for _ in range(6 if patient else 1):
            if self.machine.state() not in ("READY", UNREACHABLE):
                return False
            if patient:
                time.sleep(min(10, self.job.poll_seconds))
        return True

    def count_restart(self, reason: str) -> None:
        """Note that the command is started again.

        Raises:
            StopError: Too often.
        """
        self.restarts += 1
        if self.restarts > self.limits.max_restarts:
            raise StopError(
                f"{reason}; all restarts of --max_restarts {self.limits.max_restarts} are used up", TRY_AGAIN
            )
        self.log.say(f"{reason}: restart {self.restarts} of at most {self.limits.max_restarts}")
