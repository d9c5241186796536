"""The endless order in which training samples are drawn, over tables, streams and mixtures of both.

What is drawn is still encoded: order costs nothing to find again, so a position is a few numbers.
Several processes share an order; each draws its own part, and no two the same sample of an epoch.
"""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grain
import numpy as np

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechData
from flax_distil.data.example import SpeechRow
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.packing import PackedRows
from flax_distil.data.shards import Cursor
from flax_distil.data.stream import SpeechStream

State = dict[str, Any]

OPEN_SHARDS = 4
"""Shards of a shuffled stream that are read in turns, so that neighbours in a batch come from several."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample to make.

    Attributes:
        source: Number of the data set it comes from.
        epoch: How many times that data set had been passed over.
        number: Its number among the samples of a table; -1 in a stream.
        rows: Its rows, for a stream; None in a table, where they are looked up when they are needed.
    """

    source: int
    epoch: int
    number: int = -1
    rows: PackedRows | None = None


class DrawIterator(grain.DatasetIterator[Draw]):
    """Draws for ever; its state is as JSON takes it."""

    def start_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        raise NotImplementedError


class TableDraws(DrawIterator):
    """Samples of tables, one table after the other or all of them shuffled.

    Within any pass every sample comes once. With several processes, each takes every so-many-th
    place of the endless order, so what they draw together is what one would have drawn::

        epoch     0                   1
        place     0   1   2   3   4   5   6   7   8   9
        process   0   1   0   1   0   1   0   1   0   1

    Args:
        sizes: Number of samples of each table.
        first_source: Number of the first table among the data sets.
        seed: Of the order; None keeps that of the tables.
        shard_index: Which part.
        shard_count: Number of parts.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        first_source: int = 0,
        seed: int | None,
        shard_index: int,
        shard_count: int,
    ):
        super().__init__()
        self._first_source = first_source
        self._ends = np.cumsum(sizes)
        self._total = int(self._ends[-1])
        order = grain.MapDataset.range(self._total)
        if seed is not None:
            # grain adds the epoch's number to the seed: without hashing, neighbouring seeds would
            # give each other's epochs.
            order = order.shuffle(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._order = order.repeat()
        self._shard_index, self._shard_count = shard_index, shard_count
        self._drawn = 0

    def __next__(self) -> Draw:
        place = self._shard_index + self._drawn * self._shard_count
        self._drawn += 1
        number = int(self._order[place])
        which = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[which - 1]) if which else 0
        return Draw(source=self._first_source + which, epoch=place // self._total, number=number - before)

    def start_epoch(self, epoch: int) -> None:
        """Go to this process's first place of an epoch."""
        self._drawn = -(-(epoch * self._total - self._shard_index) // self._shard_count)

    def get_state(self) -> State:
        """Return how many samples were drawn."""
        return {"drawn": self._drawn}

    def set_state(self, state: State) -> None:
        """Continue after so many samples."""
        self._drawn = state["drawn"]


class StreamRows:
    """Rows of a stream, epoch after epoch: this process's shards, some of them in turns.

    Args:
        stream: The data set.
        seed: Of the order of shards; None keeps their order and reads one at a time.
        shard_index: Which part of the shards this process reads, in every epoch another.
        shard_count: Number of parts.

    Raises:
        InputError: if there are fewer shards than parts.
    """

    def __init__(self, stream: SpeechStream, *, seed: int | None, shard_index: int, shard_count: int):
        if len(stream.shards) < shard_count:
            raise InputError(
                f"data set {stream.name!r} has {len(stream.shards)} files to stream for {shard_count} "
                "processes: write it as at least as many files, or do not stream it"
            )
        self._stream, self._seed = stream, seed
        self._shard_index, self._shard_count = shard_index, shard_count
        self._go_to({"epoch": 0, "opened": 0, "waiting": []}, 0)

    def _go_to(self, place: State, row: int) -> None:
        self._place, self._row = place, row
        self._blocks = self._read(place)
        self._rows = next(self._blocks)[1] if row else []

    def __next__(self) -> tuple[int, SpeechRow | None]:
        """Return the epoch and its next row; None behind its last."""
        while self._row >= len(self._rows):
            self._place, self._rows = next(self._blocks)
            self._row = 0
        self._row += 1
        return self._place["epoch"], self._rows[self._row - 1]

    def start_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.set_state({"place": {"epoch": epoch, "opened": 0, "waiting": []}, "row": 0})

    def get_state(self) -> State:
        """Return where the block of the last row was read, and how many of its rows were handed out."""
        return {"place": self._place, "row": self._row}

    def set_state(self, state: State) -> None:
        """Continue at a place; its block is read again."""
        self._blocks.close()
        self._go_to(state["place"], state["row"])

    def close(self) -> None:
        """Close the files that are open."""
        self._blocks.close()

    def _order(self, epoch: int) -> list[int]:
        shards = np.arange(len(self._stream.shards))
        if self._seed is not None:
            shards = np.random.default_rng([self._seed, epoch]).permutation(shards)
        return [int(shard) for shard in shards[self._shard_index :: self._shard_count]]

    def _read(self, place: State) -> Generator[tuple[State, list[SpeechRow | None]]]:
        """Yield blocks, each with the place it was read from; ``[None]`` behind each epoch.

        The next block of every open shard is read meanwhile.
        """
        epoch, opened = place["epoch"], place["opened"]
        waiting: list[tuple[int, Cursor | None]] = [(shard, cursor) for shard, cursor in place["waiting"]]
        readers: dict[int, Generator[tuple[SpeechData, Cursor | None]]] = {}
        blocks: dict[int, Future[tuple[SpeechData, Cursor | None] | None]] = {}
        at_once = 1 if self._seed is None else OPEN_SHARDS
        with ThreadPoolExecutor(at_once, thread_name_prefix="shard") as threads:
            try:
                while True:
                    order = self._order(epoch)
                    while len(waiting) < at_once and opened < len(order):
                        waiting.append((order[opened], None))
                        opened += 1
                    here = {"epoch": epoch, "opened": opened, "waiting": [list(entry) for entry in waiting]}
                    if not waiting:
                        yield here, [None]
                        epoch, opened = epoch + 1, 0
                        continue
                    for shard, cursor in waiting:
                        if shard not in readers:
                            readers[shard] = self._stream.blocks(shard, cursor)
                            blocks[shard] = threads.submit(next, readers[shard], None)
                    shard, _ = waiting.pop(0)
                    data, after = blocks.pop(shard).result() or (None, None)  # a shard may have no rows
                    if after is None:
                        readers.pop(shard).close()
                    else:
                        waiting.append((shard, after))
                        blocks[shard] = threads.submit(next, readers[shard], None)
                    if data is not None:
                        yield here, [*data.rows()]
            finally:
                for block in blocks.values():
                    block.exception()  # a reader that runs cannot be closed
                for reader in readers.values():
                    reader.close()


class NoSampleError(Exception):
    """A whole pass over a stream gave no sample."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
    """Samples made of neighbouring rows."""

    start: State
    epoch: int
    draws: list[Draw]
    dropped: DropReport
    ends_epoch: bool


class StreamDraws(DrawIterator):
    """Samples of a stream, made of windows of neighbouring rows and shuffled within them.

    The next window is read while this one is used; no audio is decoded. A position is where the
    window began and how many of its samples are gone, so a resumed run reads one window again.

    Attributes:
        dropped: What the filters dropped in the first pass, up to the window at hand.

    Args:
        source: Number of the data set.
        rows: Its rows.
        make: Filters and joins the rows of a window, and tells what it dropped.
        window_size: Rows of a window; it never holds those of two epochs.
        seed: Of the order within windows; None keeps that of the rows.
    """

    def __init__(
        self,
        source: int,
        rows: StreamRows,
        *,
        make: Callable[[list[SpeechRow]], tuple[list[PackedRows], DropReport]],
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
        self._begin(rows.get_state(), 0)

    def __next__(self) -> Draw:
        ends_without_sample = 0
        while self._window is None or self._position >= len(self._window.draws):
            ends_without_sample += self._window is not None and self._window.ends_epoch
            if ends_without_sample > 2:  # the first may end the epoch of the sample before
                raise NoSampleError
            self._next_window()
        self._position += 1
        return self._window.draws[self._position - 1]

    def start_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        number = self._state["number"] + 1
        self._stop_reading()
        self._rows.start_epoch(epoch)
        self._begin(self._rows.get_state(), number)

    def get_state(self) -> State:
        """Return the beginning of the window, its number, and how many of its samples were drawn."""
        return {**self._state, "position": self._position}

    def set_state(self, state: State) -> None:
        """Read the window again and continue in it."""
        self._stop_reading()
        self._rows.set_state(state["start"])
        self.dropped = DropReport.joined([state["dropped"]])
        self._begin(state["start"], state["number"])
        if state["position"]:
            self._next_window()
            self._position = state["position"]

    def close(self) -> None:
        """Stop reading and close the files."""
        self._stop_reading()
        self._thread.shutdown()
        self._rows.close()
        super().close()

    def _begin(self, start: State, number: int) -> None:
        """Stand before a window that is not read yet."""
        self._window, self._position = None, 0
        self._state: State = {"start": start, "number": number, "dropped": self.dropped.get_state()}

    def _next_window(self) -> None:
        number = self._state["number"] + (self._window is not None)
        self._window = (self._ahead or self._thread.submit(self._read_window, number)).result()
        self._state = {"start": self._window.start, "number": number, "dropped": self.dropped.get_state()}
        self._position = 0
        if self._window.epoch == 0:
            self.dropped = DropReport.joined([self.dropped.get_state(), self._window.dropped.get_state()])
        self._ahead = self._thread.submit(self._read_window, number + 1)

    def _stop_reading(self) -> None:
        if self._ahead is not None:
            self._ahead.exception()  # wait: the rows must stand still
            self._ahead = None

    def _read_window(self, number: int) -> _Window:
        start, ends_epoch = self._rows.get_state(), False
        rows: list[SpeechRow] = []
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
            samples = [samples[place] for place in order]
        draws = [Draw(source=self._source, epoch=epoch, rows=sample) for sample in samples]
        return _Window(start=start, epoch=epoch, draws=draws, dropped=dropped, ends_epoch=ends_epoch)


class MixedDraws(DrawIterator):
    """Samples of several data sets in fixed proportions, spread as evenly as they can be.

    Args:
        parents: The data sets.
        weights: Positive; their sum does not matter.
        restart: True starts all anew when the first is exhausted (``first_exhausted``), so that in
            no pass a sample comes twice; False lets each go on by itself (``all_exhausted``).
    """

    def __init__(self, parents: Sequence[DrawIterator], weights: Sequence[float], *, restart: bool):
        super().__init__(list(parents))
        self._weights, self._restart = np.array(weights, np.float64), restart
        self._drawn, self._pass = np.zeros(len(parents), np.int64), 0

    def __next__(self) -> Draw:
        which = int(np.argmin((self._drawn + 1) / self._weights))
        draw: Draw = next(self._parents[which])
        if self._restart and draw.epoch > self._pass:
            self.start_epoch(draw.epoch)
            return next(self)
        self._drawn[which] += 1
        return draw

    def start_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, in all data sets."""
        self._pass = epoch
        for parent in self._parents:
            parent.start_epoch(epoch)

    def get_state(self) -> State:
        """Return the positions of all, and how many samples of each were drawn."""
        return {
            "drawn": self._drawn.tolist(),
            "pass": self._pass,
            "parents": [parent.get_state() for parent in self._parents],
        }

    def set_state(self, state: State) -> None:
        """Continue where :meth:`get_state` was called."""
        self._drawn, self._pass = np.array(state["drawn"], np.int64), state["pass"]
        for parent, position in zip(self._parents, state["parents"], strict=True):
            parent.set_state(position)
