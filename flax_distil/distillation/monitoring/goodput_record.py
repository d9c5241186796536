"""The file ``goodput.json``: wall time by cause, over all attempts of a run."""

import dataclasses
import datetime
import itertools
import json
from typing import Any

from flax_distil.storage.paths import AnyPath, read_text, write_whole

GOODPUT_NAME = "goodput.json"

CAUSES = ("start", "compile", "data", "step", "save", "evaluation", "export", "lost")
"""What wall time is spent on.

start: imports, reading models and data, restoring a checkpoint.
compile: compiling programs, or finding them in the cache.
data: the devices wait for a batch.
step: training steps that count, and waiting for the devices.
save: what a checkpoint takes before training goes on.
evaluation: losses and transcripts of the evaluation sets.
export: everything after the last step.
lost: whatever an attempt did after the checkpoint from which a later one went on.
"""

_SAVES_KEPT = 20

_PATIENCE_SECONDS = 10.0
"""Training does not wait longer for a bucket that does not take this file; it is written again soon."""

Seconds = dict[str, float]


@dataclasses.dataclass(kw_only=True)
class Attempt:
    """One process from its start to its end, or to the last time that it wrote.

    Attributes:
        started: When it was started, in seconds since 1970.
        first_step: Number of steps that were done before.
        last_step: Number of the last step that it dispatched.
        seconds_to_first_step: Seconds from its start to the end of its first step; None before that.
        seconds: Seconds by cause.
        saves: What ``seconds`` was at each of the last checkpoints, by step.
    """

    started: float
    first_step: int = 0
    last_step: int = 0
    seconds_to_first_step: float | None = None
    seconds: Seconds = dataclasses.field(default_factory=dict)
    saves: dict[int, Seconds] = dataclasses.field(default_factory=dict)

    @property
    def wall(self) -> float:
        """Its seconds in all."""
        return sum(self.seconds.values(), 0.0)

    def lose_after(self, step: int) -> None:
        """Count what was done after the checkpoint of a step as lost, if later steps were done."""
        if self.last_step <= step:
            return
        kept = max((saved for saved in self.saves if saved <= step), default=None)
        seconds = {} if kept is None else self.saves[kept]
        lost = seconds.get("lost", 0.0) + self.wall - sum(seconds.values())
        self.saves = {saved: at for saved, at in self.saves.items() if saved <= step}
        self.seconds, self.last_step = seconds | {"lost": lost}, step

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the file."""
        saves = dict(sorted(self.saves.items())[-_SAVES_KEPT:])
        return {
            "started": _time_text(self.started),
            "written": _time_text(self.started + self.wall),
            "first_step": self.first_step,
            "last_step": self.last_step,
            "seconds_to_first_step": self.seconds_to_first_step and round(self.seconds_to_first_step, 3),
            "seconds": _rounded(self.seconds),
            "seconds_at_saves": {str(step): _rounded(seconds) for step, seconds in saves.items()},
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Attempt":
        """Return what :meth:`to_json` wrote."""
        return cls(
            started=datetime.datetime.fromisoformat(entry["started"]).timestamp(),
            first_step=int(entry["first_step"]),
            last_step=int(entry["last_step"]),
            seconds_to_first_step=entry.get("seconds_to_first_step"),
            seconds=_numbers(entry["seconds"]),
            saves={int(step): _numbers(seconds) for step, seconds in entry["seconds_at_saves"].items()},
        )


class GoodputRecord:
    """The earlier attempts of a run, and the file that holds them."""

    def __init__(self, path: AnyPath, earlier: list[Attempt]):
        self._path, self._earlier = path, earlier

    @classmethod
    def read(cls, folder: AnyPath) -> "GoodputRecord":
        """Return the record in the ``output_dir`` of a run; one that cannot be read begins anew."""
        path = folder / GOODPUT_NAME
        try:
            entries = json.loads(read_text(path))["attempts"]
            return cls(path, [Attempt.from_json(entry) for entry in entries])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, [])

    def lose_after(self, step: int) -> None:
        """Count what earlier attempts did after the checkpoint of a step as lost."""
        for attempt in self._earlier:
            attempt.lose_after(step)

    def write(self, current: Attempt) -> None:
        """Replace the file.

        Raises:
            OSError: If it cannot be written.
            StorageError: If it cannot be written to a bucket.
        """
        attempts = [*self._earlier, current]
        wall = sum(attempt.wall for attempt in attempts)
        totals = _totals(attempts)
        content = {
            "goodput": round(totals["step"] / max(wall, 1e-9), 4),
            "wall_seconds": round(wall, 3),
            "seconds": _rounded(totals),
            "seconds_between_attempts": round(_between(attempts), 3),
            "attempts": [attempt.to_json() for attempt in attempts],
        }
        write_whole(self._path, json.dumps(content, indent=2) + "\n", patience_seconds=_PATIENCE_SECONDS)

    def summary(self, current: Attempt) -> str:
        """Return a line with the share of each cause over all attempts."""
        attempts = [*self._earlier, current]
        totals, wall = _totals(attempts), max(sum(attempt.wall for attempt in attempts), 1e-9)
        others = sorted((name for name in CAUSES if name != "step"), key=lambda name: -totals[name])
        parts = [f"{name} {totals[name] / wall:.1%}" for name in others if totals[name] / wall >= 0.0005]
        counted = f" in {len(attempts)} attempts" if len(attempts) > 1 else ""
        return f"goodput: {totals['step'] / wall:.1%} of {wall:.0f} s{counted} went into training steps" + (
            f" ({', '.join(parts)})" if parts else ""
        )


def _totals(attempts: list[Attempt]) -> Seconds:
    return {cause: sum(attempt.seconds.get(cause, 0.0) for attempt in attempts) for cause in CAUSES}


def _between(attempts: list[Attempt]) -> float:
    """Return the seconds between the last that is known of each attempt and the start of the next."""
    gaps = (after.started - before.started - before.wall for before, after in itertools.pairwise(attempts))
    return sum((max(gap, 0.0) for gap in gaps), 0.0)


def _rounded(seconds: Seconds) -> Seconds:
    return {cause: round(value, 3) for cause, value in seconds.items()}


def _numbers(seconds: dict[str, Any]) -> Seconds:
    return {cause: float(value) for cause, value in seconds.items() if cause in CAUSES}


def _time_text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
