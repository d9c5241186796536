"""One TPU: created on demand, as spot or through the queue, asked for its state, deleted for certain."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from tpu_supervisor.gcloud import Gcloud, GcloudError, NoCapacityError, NotFoundError

RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Version of the machine's image, by the family of its accelerator type."""
BY_CHIPS = ("v5litepod", "v6e")
COMING = ("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING")
COMING += ("ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES", "ACTIVE")
"""States before READY; a request is ACTIVE just before its machine is there."""
MISSING, UNREACHABLE = "MISSING", "UNREACHABLE"


class NotDeletedError(Exception):
    """A machine may still exist; the text says how to delete it."""


@dataclass(frozen=True)
class Slice:
    """What to ask for.

    Attributes:
        name: Name of the TPU, and of its request in the queue.
        accelerator_type: As gcloud calls it: v4-8, v5litepod-8, v5p-8, v6e-8 or larger.
        runtime_version: Image of the machine; by default the one for the accelerator type.
        spot: Whether it may be taken away (and costs less).
        queued: Whether to wait in the queue of Cloud TPU instead of asking again and again.
        queue_minutes: How long a request waits in one zone before the next is tried; without end if 0.
        options: More flags of the command that creates it, as ``--network=…``.
    """

    name: str
    accelerator_type: str
    runtime_version: str
    spot: bool = False
    queued: bool = False
    queue_minutes: float = 0
    options: tuple[str, ...] = ()


class Machine:
    """The TPU of a run.

    Args:
        gcloud: Runs the commands.
        wanted: What to create.
        pause: Seconds between two looks at its state.
    """

    def __init__(self, gcloud: Gcloud, wanted: Slice, pause: float):
        self.gcloud, self.wanted, self.pause = gcloud, wanted, pause
        self.zone: str | None = None  # where it exists, or may exist
        self.asking = False
        self.trouble = ""  # why Google could not be asked

    def create(self, zone: str) -> None:
        """Create it in a zone, or put a request for it into the queue there.

        Raises:
            NoCapacityError: There is none at the moment.
            GcloudError: The request was refused for another reason.
        """
        self.zone = zone
        wanted = self.wanted
        words = [f"--accelerator-type={wanted.accelerator_type}", *(["--spot"] if wanted.spot else [])]
        if wanted.queued:
            words += [f"--runtime-version={wanted.runtime_version}", f"--node-id={wanted.name}"]
        else:
            words.append(f"--version={wanted.runtime_version}")
        self.asking = True
        self._call("create", *words, *wanted.options, queued=wanted.queued)
        self.asking = False

    def wait_until_ready(self, check_time: Callable[[], None]) -> None:
        """Wait until it is ready.

        Args:
            check_time: Called between two looks; raises where the time is over.

        Raises:
            NoCapacityError: It was taken away, or the queue gave none in time.
        """
        wanted = self.wanted
        deadline = time.monotonic() + (wanted.queue_minutes * 60 or float("inf"))
        while (state := self.state()) != "READY":
            if state not in (*COMING, UNREACHABLE):
                raise NoCapacityError(f"it was {state} before it was ready")
            if wanted.queued and time.monotonic() > deadline:
                raise NoCapacityError(f"the queue gave none within {wanted.queue_minutes:g} minutes")
            check_time()
            time.sleep(self.pause)

    def state(self) -> str:
        """Return its state as Google calls it; MISSING without a machine, UNREACHABLE without an answer."""
        state = self._describe(queued=False).get("state", MISSING)
        if state == MISSING and self.wanted.queued:
            state = self._describe(queued=True).get("state", MISSING)
            state = state.get("state", MISSING) if isinstance(state, dict) else state
        return state

    def workers(self) -> int:
        """Return the number of its hosts."""
        return max(1, len(self._describe(queued=False).get("networkEndpoints", ())))

    def delete(self) -> None:
        """Delete it, and look whether it is gone; tries several times.

        Raises:
            NotDeletedError: It may still be there.
        """
        if self.asking:  # the request was cut off: what it made may show only later
            time.sleep(self.pause)
        for attempt in range(7):
            if self.zone is None or self.state() == MISSING:
                self.zone, self.asking = None, False
                return
            try:
                self._call("delete", *(["--force"] if self.wanted.queued else []), queued=self.wanted.queued)
            except NotFoundError:
                pass
            except GcloudError as error:
                self.gcloud.log.say(f"{self.wanted.name} was not deleted, trying again: {error}")
                time.sleep(self.pause * 2**attempt)
        raise NotDeletedError(
            f"the TPU {self.wanted.name} in {self.zone} may still exist and cost money: "
            f"delete it with: {self.how_to_delete()}"
        )

    def how_to_delete(self) -> str:
        """Return the command that deletes it."""
        kind = "queued-resources" if self.wanted.queued else "tpu-vm"
        words = ["gcloud compute tpus", kind, "delete", self.wanted.name, f"--zone={self.zone}"]
        return " ".join([*words, *(["--force"] if self.wanted.queued else []), *self.gcloud.options[1:]])

    def _describe(self, queued: bool) -> dict:
        try:
            return json.loads(self._call("describe", "--format=json", queued=queued, seconds=120) or "{}")
        except NotFoundError:
            return {}
        except (GcloudError, ValueError) as error:
            self.trouble = str(error)
            return {"state": UNREACHABLE}

    def _call(self, verb: str, *words: str, queued: bool, seconds: float = 1800) -> str:
        kind = "queued-resources" if queued else "tpu-vm"
        name, zone = self.wanted.name, f"--zone={self.zone}"
        return self.gcloud.run("compute", "tpus", kind, verb, name, zone, *words, seconds=seconds)


def family_of(accelerator_type: str) -> str:
    """Check an accelerator type and return its family.

    Raises:
        ValueError: Cloud TPU has no such type, with what to write instead.
    """
    family, _, size = accelerator_type.partition("-")
    if family in ("tpu7x", "v7x", "ironwood"):
        raise ValueError(
            f"accelerator type {accelerator_type} is not offered by the Cloud TPU API, which this script "
            "uses, only by Google Kubernetes Engine and Compute Engine"
        )
    if family in ("v5e", "v5lite"):
        raise ValueError(
            f"accelerator type {accelerator_type} is called v5litepod-{size} by gcloud: write that"
        )
    if family not in RUNTIMES:
        raise ValueError(
            f"accelerator type {accelerator_type} is unknown: use one of {', '.join(RUNTIMES)}, as v4-8"
        )
    good = re.fullmatch(r"[1-9]\d*", size) and (int(size) in (1, 4) if family in BY_CHIPS else False)
    if not good and not (size.isdigit() and int(size) % 8 == 0 and int(size)):
        counted = "chips: 1, 4 or a multiple of 8" if family in BY_CHIPS else "cores, a multiple of 8"
        raise ValueError(
            f"accelerator type {accelerator_type}: the number of {family} is that of its {counted}"
        )
    return family
