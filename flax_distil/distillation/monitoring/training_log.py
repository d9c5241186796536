"""The logs of a training run: ``metrics.jsonl``, the services that it reports to, and a line of progress."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from flax_distil.core.console import is_quiet
from flax_distil.core.failures import short_reason
from flax_distil.distillation.evaluation.predictions import EVALUATIONS_NAME, Prediction, write_predictions
from flax_distil.distillation.monitoring.config import ReportingConfig
from flax_distil.distillation.monitoring.progress_line import ProgressLine
from flax_distil.distillation.monitoring.reporters.open_reporters import Reporters
from flax_distil.distillation.monitoring.reporters.reporter import Histogram, Reporter
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.mirror import Mirror
from flax_distil.storage.paths import AnyPath, read_text, write_whole

log = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"

_LOCAL = ReportingConfig()


class TrainingLog:
    """Writes one object per log line; use as a context manager.

    A resumed run continues the file: lines after its first step, of work that was lost,
    are removed, and TensorBoard is told to drop its own. In a bucket the files are some
    seconds behind.
    """

    def __init__(
        self,
        folder: AnyPath,
        *,
        max_steps: int,
        first_step: int = 0,
        active: bool = True,
        reporting: ReportingConfig = _LOCAL,
        settings: Mapping[str, Any] | None = None,
    ):
        """Open the logs of a run.

        Args:
            folder: The ``output_dir`` of the run; it exists.
            max_steps: Number of optimizer updates of the whole run.
            first_step: Number of updates done before, by the run that is resumed.
            active: False on processes that write no logs.
            reporting: Services that the run reports to, beside the files.
            settings: Settings of the run by flag, for these services.
        """
        self._mirror = Mirror(folder) if active and isinstance(folder, BucketPath) else None
        self._local = folder if isinstance(folder, Path) else Path(os.devnull)
        if self._mirror is not None:
            self._local = self._mirror.local
        path = self._local / METRICS_NAME if active else Path(os.devnull)
        if active:
            kept = [line for line in read_metrics(folder) if line["step"] <= first_step]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._reporters: Reporters | None = None
        if active:
            self._reporters = Reporters(
                reporting, folder, self._local, first_step=first_step, settings=settings
            )
        self._failed: set[str] = set()
        self._line = ProgressLine(max_steps, first_step=first_step, is_hidden=not active or is_quiet())

    def advance(self, step: int) -> None:
        """Show that a step was dispatched."""
        self._line.advance(step)

    def write(self, step: int, values: dict[str, float], *, prefix: str = "") -> None:
        """Log values of a step; names get ``prefix``; a value that is not finite becomes null in the file.

        If storage fails, this is told once, and the next line is written with what is left of this one.
        """
        values = {f"{prefix}{name}": float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()  # what cannot be written stays in its buffer
            self._failed.discard(METRICS_NAME)
        except OSError as error:
            self._warn(METRICS_NAME, error)
        self._report(lambda reporter: reporter.scalars(step, values))

    def predictions(self, step: int, by_set: dict[str, list[Prediction]]) -> None:
        """Keep samples of an evaluation, and report them."""
        if self._reporters is None:
            return
        try:
            write_predictions(self._local, step, by_set)
            self._failed.discard(EVALUATIONS_NAME)
        except OSError as error:
            self._warn(EVALUATIONS_NAME, error)
        self._report(lambda reporter: reporter.predictions(step, by_set))

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        """Report distributions of weights."""
        self._report(lambda reporter: reporter.histograms(step, found))

    def show(self, values: dict[str, float]) -> None:
        """Show the figures of a log line."""
        self._line.show(values)

    def say(self, text: str) -> None:
        """Print a line of text."""
        self._line.say(text)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()
        try:
            self._file.close()
        except OSError as failed:
            self._warn(METRICS_NAME, failed)
        self._report(lambda reporter: reporter.close())
        if self._mirror is not None:
            self._mirror.close()

    def _report(self, call: Callable[[Reporter], None]) -> None:
        if self._reporters is not None:
            self._reporters.each(call)
        if self._mirror is not None:
            self._mirror.changed()

    def _warn(self, name: str, error: OSError) -> None:
        if name not in self._failed:
            log.warning("%s cannot be written (%s)", name, short_reason(error))
        self._failed.add(name)


def read_metrics(folder: AnyPath) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``; a last line cut short by a crash is left out."""
    path = folder / METRICS_NAME
    lines = []
    for text in read_text(path).splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
