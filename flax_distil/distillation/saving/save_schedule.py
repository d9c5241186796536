"""When training saves: every so many updates or minutes, and again after a save that failed."""

import time

import jax

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.distillation.config import CheckpointingConfig
from flax_distil.parallel.processes import all_gather_object

_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 600.0
"""Seconds before a save that failed is tried again; the pause doubles each time."""


class SaveSchedule:
    """Decides at which steps to save, the same on all processes.

    Where there are several, clocks are compared only at the steps of log lines, for which all of them wait
    anyway; a process alone looks at its clock at each step.
    """

    def __init__(self, config: CheckpointingConfig, checkpoints: TrainingCheckpoints) -> None:
        """Start the clock.

        Args:
            config: How often to save.
            checkpoints: Where to; a save that failed there is due again after a pause.
        """
        self._config, self._checkpoints = config, checkpoints
        self._looks_every = 1 if jax.process_count() == 1 else config.logging_steps
        self._pause, self._last = _FIRST_PAUSE, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether to save after this step; all processes call it at each step."""
        if self._config.save_steps and step % self._config.save_steps == 0:
            return True
        if step % self._looks_every:
            return False
        self._checkpoints.poll()
        return all_gather_object(self._is_time())[0]

    def restart(self) -> None:
        """Start the clock anew, after a save."""
        has_failed = self._checkpoints.failure is not None
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if has_failed else _FIRST_PAUSE
        self._last = time.monotonic()

    def _is_time(self) -> bool:
        seconds, minutes = time.monotonic() - self._last, self._config.save_minutes
        if self._checkpoints.failure is not None and seconds >= self._pause:
            return True
        return minutes is not None and seconds >= 60 * minutes
