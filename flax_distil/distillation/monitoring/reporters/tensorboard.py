"""Events for TensorBoard, written at once: a full disk neither ends a thread nor fills a queue."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_distil.distillation.evaluation.predictions import Prediction
from flax_distil.distillation.monitoring.reporters.reporter import Histogram

_FLUSH_SECONDS = 10.0

_MARKS = {"delete": "[-{0}-]", "insert": "{{+{1}+}}", "substitute": "[-{0}-]{{+{1}+}}", "equal": "{0}"}
"""The notation of ``git diff --word-diff``, which is readable without colors."""


class TensorBoardReporter:
    """Appends to a new file of events in a folder, which is made when there is something to write."""

    def __init__(
        self, folder: Path, *, purge_step: int | None = None, settings: Mapping[str, Any] | None = None
    ):
        """Note where the file will be.

        Args:
            folder: Folder of the files of a run, created if absent.
            purge_step: First step whose events in earlier files are to be forgotten.
            settings: Settings of the run that differ from their defaults, which are shown as text.
        """
        self._folder, self._purge_step, self._settings = folder, purge_step, settings
        self._writer: Any = None
        self._flushed = 0.0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add the scalars of a step; they are on the disk some seconds later.

        Raises:
            OSError: If they cannot be written.
        """
        from tensorboardX.summary import scalar

        self._write(step, [scalar(*item) for item in values.items()])

    def predictions(self, step: int, by_set: Mapping[str, Sequence[Prediction]]) -> None:
        """Add a table of samples for each data set, with reference and hypothesis in one text.

        Raises:
            OSError: If it cannot be written.
        """
        from tensorboardX.summary import text

        self._write(step, [text(f"predictions/{name}", _table(samples)) for name, samples in by_set.items()])

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        """Add histograms.

        Raises:
            OSError: If they cannot be written.
        """
        from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

        values = []
        for name, one in found.items():
            count = float(one.counts.sum())
            proto = HistogramProto(
                min=one.edges[0],
                max=one.edges[-1],
                num=count,
                sum=float((one.counts * (one.edges[1:] + one.edges[:-1]) / 2).sum()),
                sum_squares=one.mean_square * count,
                bucket_limit=list(one.edges[1:]),
                bucket=list(one.counts),
            )
            values.append(Summary(value=[Summary.Value(tag=name, histo=proto)]))
        self._write(step, values)

    def close(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: If it cannot be written.
        """
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, parts: Sequence[Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import Summary

        summary = Summary(value=[value for part in parts for value in part.value])
        self._open().write_event(Event(summary=summary, step=step, wall_time=time.time()))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _open(self) -> Any:
        """Return the writer of the file; where torch is installed, importing it takes a second."""
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import text

            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))
            if self._purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self._writer.write_event(Event(step=self._purge_step, session_log=start))
            if self._settings:
                rows = [f"| {_cell(name)} | {_cell(str(value))} |" for name, value in self._settings.items()]
                table = "\n".join(["| setting | value |", "|---|---|", *rows])
                self._writer.write_event(Event(summary=text("settings", table), wall_time=time.time()))
        return self._writer


def _table(samples: Sequence[Prediction]) -> str:
    head = ["| sample | errors/words | [-reference-] {+student+} |", "|---|---|---|"]
    rows = [
        f"| {_cell(sample.id)} | {sample.errors}/{sample.words} | {_diff(sample)} |" for sample in samples
    ]
    return "\n".join(head + rows)


def _diff(sample: Prediction) -> str:
    return " ".join(_MARKS[kind].format(_cell(left), _cell(right)) for kind, left, right in sample.diff)


def _cell(text: str) -> str:
    """Return text that Markdown takes for nothing else, in a table too."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_|<>[]{}#~" else letter for letter in text)
    return " ".join(escaped.split())
