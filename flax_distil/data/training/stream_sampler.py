"""Sample a streamed data set: windows of consecutive rows are filtered, joined and shuffled."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from flax_distil.data.example import Example
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.packing import PackedRows
from flax_distil.data.training.samplers import SampleIndex, Sampler, State
from flax_distil.data.training.stream_rows import StreamRows


class NoSampleError(Exception):
    """The error for a complete pass over a stream without any sample."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
    """Samples that were made from a window of consecutive rows."""

    start: State
    epoch: int
    samples: list[SampleIndex]
    dropped: DropReport
    ends_epoch: bool


class StreamSampler(Sampler):
    """Yields the samples of a stream, which are made from windows of rows and shuffled within each window.

    The next window is read while the current one is used; no audio is decoded. A position consists of the
    beginning of the window and the number of its samples that were drawn, so resuming reads one window again.

    Args:
        source: Number of the data set.
        rows: Rows of the data set.
        make: Function that filters and joins the rows of a window, and returns the samples and what was
            dropped.
        window_size: Number of rows of a window; a window never has rows of two epochs.
        seed: Seed of the order within windows; None keeps the order of the rows.
    """

    def __init__(
        self,
        source: int,
        rows: StreamRows,
        *,
        make: Callable[[list[Example]], tuple[list[PackedRows], DropReport]],
        window_size: int,
        seed: int | None,
    ):
        super().__init__()
        self._source, self._rows, self._make = source, rows, make
        self._window_size, self._seed = window_size, seed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="window")
        self._window: _Window | None = None
        self._ahead: Future[_Window] | None = None
        self.dropped = DropReport()
        """Rows that the filters dropped in the first pass, up to the current window."""
        self._begin(rows.get_state(), 0)

    def __next__(self) -> SampleIndex:
        ends_without_sample = 0
        while self._window is None or self._position >= len(self._window.samples):
            ends_without_sample += self._window is not None and self._window.ends_epoch
            if ends_without_sample > 2:  # the first one may end the epoch of an earlier sample
                raise NoSampleError
            self._next_window()
        self._position += 1
        return self._window.samples[self._position - 1]

    def start_epoch(self, epoch: int) -> None:
        """Move to the beginning of an epoch."""
        number = self._state["number"] + 1
        self._stop_reading()
        self._rows.start_epoch(epoch)
        self._begin(self._rows.get_state(), number)

    def get_state(self) -> State:
        """Return the beginning of the window, its number, and the number of its samples that were drawn."""
        return {**self._state, "position": self._position}

    def set_state(self, state: State) -> None:
        """Read a window again, and continue in it at a position from :meth:`get_state`."""
        self._stop_reading()
        self._rows.set_state(state["start"])
        self.dropped = DropReport.merge([state["dropped"]])
        self._begin(state["start"], state["number"])
        if state["position"]:
            self._next_window()
            self._position = state["position"]

    def close(self) -> None:
        """Stop reading, and close the files."""
        self._stop_reading()
        self._thread.shutdown()
        self._rows.close()
        super().close()

    def _begin(self, start: State, number: int) -> None:
        """Move to the beginning of a window that has not been read yet."""
        self._window, self._position = None, 0
        self._state: State = {"start": start, "number": number, "dropped": self.dropped.get_state()}

    def _next_window(self) -> None:
        number = self._state["number"] + (self._window is not None)
        self._window = (self._ahead or self._thread.submit(self._read_window, number)).result()
        self._state = {"start": self._window.start, "number": number, "dropped": self.dropped.get_state()}
        self._position = 0
        if self._window.epoch == 0:
            self.dropped = DropReport.merge([self.dropped.get_state(), self._window.dropped.get_state()])
        self._ahead = self._thread.submit(self._read_window, number + 1)

    def _stop_reading(self) -> None:
        if self._ahead is not None:
            self._ahead.exception()  # wait until nothing reads the rows any more
            self._ahead = None

    def _read_window(self, number: int) -> _Window:
        start, ends_epoch = self._rows.get_state(), False
        rows: list[Example] = []
        epoch = start["place"]["epoch"]
        while len(rows) < self._window_size and not ends_epoch:
            epoch, row = next(self._rows)
            if row is None:
                ends_epoch = True
            else:
                rows.append(row)
        samples, dropped = self._make(rows)
        if self._seed is not None:
            order = np.random.default_rng([self._seed, epoch, number]).permutation(len(samples))
            samples = [samples[position] for position in order]
        indices = [SampleIndex(source=self._source, epoch=epoch, rows=sample) for sample in samples]
        return _Window(start=start, epoch=epoch, samples=indices, dropped=dropped, ends_epoch=ends_epoch)
