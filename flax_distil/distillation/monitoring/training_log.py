"""The logs of a training run: ``metrics.jsonl``, TensorBoard and a progress bar."""

import functools
import json
import logging
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from flax_distil.core.console import is_quiet
from flax_distil.core.failures import short_reason
from flax_distil.distillation.monitoring.tensorboard import ScalarWriter
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.mirror import Mirror
from flax_distil.storage.paths import AnyPath, read_text, write_whole

log = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"


class TrainingLog:
    """Writes one object per log line; use as a context manager.

    A resumed run continues the file: lines after its first step, of work that was lost,
    are removed, and TensorBoard is told to drop its own. In a bucket the files are some
    seconds behind.
    """

    def __init__(self, folder: AnyPath, *, max_steps: int, first_step: int = 0, active: bool = True):
        """Open the logs of a run.

        Args:
            folder: The ``output_dir`` of the run; it exists.
            max_steps: Number of optimizer updates of the whole run.
            first_step: Number of updates done before, by the run that is resumed.
            active: False on processes that write no logs.
        """
        self._mirror = Mirror(folder) if active and isinstance(folder, BucketPath) else None
        local = folder if isinstance(folder, Path) else Path(os.devnull)
        if self._mirror is not None:
            local = self._mirror.local
        path = local / METRICS_NAME if active else Path(os.devnull)
        if active:
            kept = [line for line in read_metrics(folder) if line["step"] <= first_step]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._board_folder, self._first_step, self._active = local / TENSORBOARD_NAME, first_step, active
        self._has_failed = False
        is_hidden = not active or is_quiet()
        self._bar = tqdm(
            total=max_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=is_hidden
        )

    @functools.cached_property
    def _board(self) -> ScalarWriter:
        """The writer of TensorBoard's files; where torch is installed, importing it takes a second."""
        return ScalarWriter(self._board_folder, purge_step=self._first_step + 1 if self._first_step else None)

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        self._bar.update(step - self._bar.n)

    def write(self, step: int, values: dict[str, float], *, prefix: str = "") -> None:
        """Log values of a step; names get ``prefix``; a value that is not finite becomes null in the file.

        If storage fails, this is told once, and the next line is written with what is left of this one.
        """
        values = {f"{prefix}{name}": float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()  # what cannot be written stays in its buffer
            if self._active:
                self._board.add(step, values)
            self._has_failed = False
        except OSError as error:
            self._warn(error)
        if self._mirror is not None:
            self._mirror.changed()

    def show(self, values: dict[str, float]) -> None:
        """Show values beside the progress bar."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if not self._bar.disable:
            self._bar.write(text)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        closings = [self._file.close]
        if "_board" in vars(self):
            closings.append(self._board.close)
        for close in closings:
            try:
                close()
            except OSError as failed:
                self._warn(failed)
        if self._mirror is not None:
            self._mirror.close()

    def _warn(self, error: OSError) -> None:
        if not self._has_failed:
            log.warning(
                "%s and TensorBoard's files cannot be written (%s)", METRICS_NAME, short_reason(error)
            )
        self._has_failed = True


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
