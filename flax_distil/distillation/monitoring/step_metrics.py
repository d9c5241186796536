"""Metrics of the steps between two log lines, and warnings about updates that diverged."""

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.training_log import TrainingLog
from flax_distil.distillation.monitoring.utilization import Utilization
from flax_distil.distillation.schedules import learning_rate_schedule
from flax_distil.distillation.train_step import LARGEST_LOSS
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.processes import all_gather_object

log = logging.getLogger(__name__)

_STEPS_IN_FLIGHT = 2
"""Steps that may wait on the devices: one runs while the batch of the next is sent."""

_DIVERGED_STEPS = 3
"""Updates in a row that diverged and end a run: a bad sample alone does not."""

_EMPTY_BATCHES = 100
"""Batches in a row without a usable sample that end a run: some files may be damaged, but not all."""

_NAMED_SAMPLES = 8


@dataclasses.dataclass
class _Step:
    """A dispatched step; its metrics are on the devices until they are fetched."""

    number: int
    metrics: Mapping[str, Any]
    ids: Sequence[str]
    is_fetched: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether the update was made, see ``apply_gradients``."""
        loss, norm = (float(self.metrics[name]) for name in ("loss", "grad_norm"))
        return math.isfinite(norm) and loss < LARGEST_LOSS

    def has(self, name: str) -> bool:
        """Whether the step has a metric: one on policy has none of labels."""
        return not (self.metrics.get("on_policy") and math.isnan(float(self.metrics[name])))


class StepMetrics:
    """Metrics between two log lines; those of a step are fetched after the next steps are dispatched.

    A step whose loss or gradient is not finite, or beyond all bounds, has changed nothing
    (``apply_gradients``) and is warned of. A few of them in a row end the run.
    """

    def __init__(
        self,
        config: DistillConfig,
        logs: TrainingLog,
        partitioner: Partitioner,
        max_steps: int,
        *,
        goodput: Goodput | None = None,
        utilization: Utilization | None = None,
    ):
        """Begin the first interval.

        Args:
            config: Configuration of the run.
            logs: Receives the means and rates of each interval.
            partitioner: The devices.
            max_steps: Number of updates of the whole run.
            goodput: Knows how long the devices waited for data; None leaves that out.
            utilization: Knows what the devices could do; None leaves that out.
        """
        self._goodput, self._utilization = goodput, utilization
        self._config, self._partitioner = config, partitioner
        self._logs, self._every = logs, config.checkpoints.logging_steps
        self._schedule = learning_rate_schedule(config.optimizer_for(max_steps))
        self._waiting: list[_Step] = []
        self._samples = self._audio_seconds = 0.0
        self._bad_steps: list[int] = []
        self._empty_batches = 0
        self.restart_clock()

    def add(self, step: int, metrics: Mapping[str, Any], batch: Batch) -> None:
        """Record a dispatched step; write a log line if the steps before it fill an interval.

        Args:
            step: Number of the step, from 1.
            metrics: Metrics of the step, on the devices.
            batch: This process's rows of the batch, on the host.

        Raises:
            InputError: If the last few updates diverged.
        """
        self.flush_full()
        self._waiting.append(_Step(step, metrics, batch.ids))
        if len(self._waiting) > _STEPS_IN_FLIGHT:  # batches sent ahead take memory
            self._fetch(self._waiting[:-_STEPS_IN_FLIGHT])
        self._samples += float(batch.valid_B.sum()) * self._partitioner.shard_count
        self._audio_seconds += float(batch.duration_B.sum()) * self._partitioner.shard_count
        if self._utilization is not None:
            self._utilization.add(batch)
        self._logs.advance(step)

    def is_sound(self) -> bool:
        """Wait for the recorded steps, and tell whether the last update was made and is worth a checkpoint.

        Raises:
            InputError: If the last few updates diverged.
        """
        self._fetch(self._waiting)
        return not self._bad_steps

    def check_end(self) -> None:
        """Wait for the recorded steps.

        Raises:
            InputError: If the last update diverged.
        """
        if not self.is_sound():
            raise self._diverged(self._waiting[-1])

    def flush_full(self) -> None:
        """Write the line of an interval that is full: after a save, a kill would lose it."""
        if self._waiting and self._waiting[-1].number % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Wait for the recorded steps and write their means and rates.

        Raises:
            InputError: If the last few updates diverged.
        """
        if not self._waiting:
            return
        self._fetch(self._waiting)
        number, count = self._waiting[-1].number, len(self._waiting)
        end = self._end_of(number)
        seconds = max(end - self._start, 1e-9)
        finite = [step for step in self._waiting if step.is_sound]
        figures = _means(finite or self._waiting[-1:])
        if len(finite) < count:
            figures["skipped_updates"] = float(count - len(finite))
        figures |= {
            "learning_rate": float(self._schedule(number - 1)),
            "samples_per_second": self._samples / seconds,
            "audio_seconds_per_second": self._audio_seconds / seconds,
            "seconds_per_step": seconds / count,
        } | self._shares(seconds)
        self._logs.write(number, figures)
        self._logs.show(figures)
        self._waiting.clear()
        self._restart(end)

    def restart_clock(self) -> None:
        """Exclude the time since the last log line, that of an evaluation, from the rates."""
        self._restart(time.perf_counter())

    def _restart(self, start: float) -> None:
        self._samples = self._audio_seconds = 0.0
        self._start, self._data_seconds = start, self._waited_for_data()
        if self._utilization is not None:
            self._utilization.take(1.0)

    def _end_of(self, step: int) -> float:
        """Return when a step ended that was waited for: the next one may have ended too by now."""
        known = None if self._goodput is None else self._goodput.end_of(step)
        return known or time.perf_counter()

    def _shares(self, seconds: float) -> dict[str, float]:
        """Return the shares of the time in which devices waited for data, and of their peak that was used."""
        shares = {}
        if self._goodput is not None:
            shares["data_wait_share"] = min(
                max(self._waited_for_data() - self._data_seconds, 0.0) / seconds, 1.0
            )
        used = None if self._utilization is None else self._utilization.take(seconds)
        return shares if used is None else shares | {"mfu": used}

    def _waited_for_data(self) -> float:
        return 0.0 if self._goodput is None else self._goodput.seconds()["data"]

    def _fetch(self, steps: Sequence[_Step]) -> None:
        """Wait for steps and check their metrics, in order."""
        for step in steps:
            if not step.is_fetched:
                step.metrics, step.is_fetched = self._partitioner.device_get(step.metrics), True
                self._look_at(step)

    def _look_at(self, step: _Step) -> None:
        self._empty_batches = 0 if step.metrics["tokens"] else self._empty_batches + 1
        if self._empty_batches >= _EMPTY_BATCHES:
            raise InputError(
                f"training stops at step {step.number}: none of the samples of the last {_EMPTY_BATCHES} "
                "batches, of all processes, has readable audio and a label; see `flax-distil data inspect`"
            )
        if step.is_sound:
            self._bad_steps.clear()
            return
        self._bad_steps.append(step.number)
        if len(self._bad_steps) >= _DIVERGED_STEPS:
            raise self._diverged(step)
        log.warning(
            "step %d: %s; the update is left out; samples: %s",
            step.number, _numbers(step), _names(step.ids),
        )  # fmt: skip

    def _diverged(self, step: _Step) -> InputError:
        """Return an error about consecutive updates that diverged; called on all processes."""
        ids = [name for part in all_gather_object(list(step.ids)) for name in part]
        count = len(self._bad_steps)
        updates = f"{count} updates in a row" if count > 1 else "the last update"
        return InputError(
            f"training stops at step {step.number}: {_numbers(step)}, in {updates} (left out: checkpoints "
            f"and weights stay as they were before); the samples of this step are {_names(ids)}; look at "
            f"them, or lower learning_rate {self._config.optimizer.learning_rate:g} or max_grad_norm "
            f"{self._config.optimizer.max_grad_norm:g} (0 does not clip)"
        )


def _means(steps: Sequence[_Step]) -> dict[str, float]:
    """Return the mean of each metric over the steps that have it; one that none has is left out."""
    means = {}
    for name in steps[0].metrics:
        values = [float(step.metrics[name]) for step in steps if step.has(name)]
        if values:
            means[name] = sum(values) / len(values)
    return means


def _numbers(step: _Step) -> str:
    loss, norm = (float(step.metrics[name]) for name in ("loss", "grad_norm"))
    return f"loss {loss:g} with gradient norm {norm:g} has diverged"


def _names(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED_SAMPLES
    return ", ".join(ids[:_NAMED_SAMPLES]) + (f" and {more} more" if more > 0 else "")
