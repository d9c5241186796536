"""Progress of a run in one line: kept up to date on a terminal, written anew per log line elsewhere."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from io import TextIOBase
from typing import Any

_SECONDS_BETWEEN_DRAWS = 0.1

_LEAST_IMPORTANT_FIRST = (
    "mfu",
    "data_wait_share",
    "learning_rate",
    "audio_seconds_per_second",
    "samples_per_second",
)
"""Figures that are left out, one after the other, where the terminal is too narrow."""


class ProgressLine:
    """Shows the step, the figures of the last log line, and the time that is left.

    On a terminal it is redrawn in place, above it lines of the program's log. In a file, or where a terminal
    cannot move its cursor, each log line is a line of text.

    Args:
        max_steps: Number of updates of the whole run.
        first_step: Number of updates done before.
        stream: Where to write; by default standard error.
        is_hidden: Whether nothing is shown at all.
    """

    def __init__(
        self,
        max_steps: int,
        *,
        first_step: int = 0,
        stream: TextIOBase | None = None,
        is_hidden: bool = False,
    ):
        self._max_steps, self._first_step, self._step = max_steps, first_step, first_step
        self._stream: Any = stream or sys.stderr
        self._is_hidden = is_hidden
        self._is_live = not is_hidden and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._figures: dict[str, float] = {}
        self._begun, self._drawn, self._is_drawn = time.monotonic(), 0.0, False
        self._handlers = [handler for handler in logging.getLogger().handlers if self._is_live]
        for handler in self._handlers:
            handler.addFilter(self._make_room)

    def advance(self, step: int) -> None:
        """Show that a step was dispatched."""
        self._step = step
        if self._is_live and time.monotonic() - self._drawn > _SECONDS_BETWEEN_DRAWS:
            self._draw()

    def show(self, figures: Mapping[str, float]) -> None:
        """Show the figures of a log line, by their names in ``metrics.jsonl``."""
        self._figures = dict(figures)
        if self._is_live:
            self._draw()
        elif not self._is_hidden:
            self._write(self.text() + "\n")

    def say(self, text: str) -> None:
        """Print a line of text, which stays."""
        if not self._is_hidden:
            self._make_room()
            print(text, flush=True)

    def close(self) -> None:
        """Leave the last state of the line on the terminal."""
        if self._is_live:
            self._draw()
            self._write("\n")
        for handler in self._handlers:
            handler.removeFilter(self._make_room)
        self._is_live, self._handlers = False, []

    def text(self, columns: int | None = None) -> str:
        """Return the line.

        Args:
            columns: Maximum number of characters; figures that do not fit are left out.
        """
        shown = {name: text for name, text in self._parts().items() if text}
        for name in ("", *_LEAST_IMPORTANT_FIRST):
            shown.pop(name, None)
            line = "  ".join(shown.values())
            if columns is None or len(line) <= columns:
                break
        return line[:columns]

    def _parts(self) -> dict[str, str]:
        parts = {"step": f"step {self._step:,}/{self._max_steps:,}"}
        formats = {
            "loss": "loss {:.4g}",
            "learning_rate": "lr {:.3g}",
            "samples_per_second": "{:.3g} samples/s",
            "audio_seconds_per_second": "{:.3g} audio-h/h",
            "data_wait_share": "data wait {:.0%}",
            "mfu": "MFU {:.1%}",
        }
        for name, form in formats.items():
            if name in self._figures:
                parts[name] = form.format(self._figures[name])
        left = self._seconds_left()
        parts["left"] = "" if left is None else f"{duration(left)} left"
        return parts

    def _seconds_left(self) -> float | None:
        """Return how long the rest takes at the speed so far, evaluations and checkpoints included."""
        done = self._step - self._first_step
        if not done or self._step == self._max_steps:
            return None
        return (time.monotonic() - self._begun) / done * (self._max_steps - self._step)

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns - 1
        self._write(f"\r{self.text(columns)}\x1b[K")
        self._drawn, self._is_drawn = time.monotonic(), True

    def _make_room(self, record: logging.LogRecord | None = None) -> bool:
        """Clear the line before something else is printed, which passes."""
        if self._is_drawn:
            self._write("\r\x1b[K")
            self._is_drawn = False
        return True

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a terminal that is gone must not end the run
            self._is_live, self._is_hidden = False, True


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``3 h 20 min``."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{whole} s"
