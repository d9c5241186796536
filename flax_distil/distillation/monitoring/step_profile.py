"""A trace of a few training steps, which XProf and Perfetto open."""

import contextlib
import logging
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from flax_distil.core.checks import parse_steps
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import AnyPath, upload_folder

log = logging.getLogger(__name__)

PROFILE_NAME = "profile"


class StepProfile:
    """Records the chosen steps, on all processes; use it as a context manager around the loop of steps.

    Args:
        steps: ``first:last``; None records nothing.
        folder: The ``output_dir`` of the run, which gets a folder ``profile``.
        first_step: Number of updates that were done before.
    """

    def __init__(self, steps: str | None, folder: AnyPath, *, first_step: int = 0):
        self._first, self._last = parse_steps("profile_steps", steps) if steps else (0, 0)
        self._target, self._recording = folder / PROFILE_NAME, False
        self._open = contextlib.ExitStack()
        self._annotation = contextlib.ExitStack()
        if steps and self._last <= first_step:
            log.warning("profile_steps %s were done before: nothing is recorded", steps)

    def at(self, step: int, state: Any) -> None:
        """Begin a step.

        Args:
            step: Its number.
            state: Arrays that the steps before compute; before the trace ends, they are waited for.
        """
        if not self._first <= step <= self._last + 1:
            return
        self._annotation.close()
        if step == self._last + 1:
            jax.block_until_ready(state)
            self._open.close()
        else:
            self._start()
            self._annotation.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._annotation.close()
        self._open.close()

    def _start(self) -> None:
        if self._recording:
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python functions would crowd out all else
        target = self._target
        if jax.process_count() > 1:  # processes of one host would write the same file
            target = target / f"process_{jax.process_index():05d}"
        folder = target
        if isinstance(target, BucketPath):
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="flax-distil-")))
            self._open.callback(upload_folder, folder, target)
        jax.profiler.start_trace(str(folder), create_perfetto_trace=True, profiler_options=options)
        self._open.callback(log.info, "steps %d to %d are recorded in %s", self._first, self._last, target)
        self._open.callback(jax.profiler.stop_trace)
        self._recording = True
