"""Read the rows of a streamed data set in an endless order; a position consists of a few numbers."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.example import Example
from flax_distil.data.shards.shard import Cursor
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.training.samplers import State

OPEN_SHARDS = 4
"""Number of shards of a shuffled stream that are read in turns, so that a batch has rows of several
shards."""


class StreamRows:
    """An iterator over the rows of the files (shards) of one data shard of the run, epoch after epoch.

    Args:
        stream: The data set.
        seed: Seed of the order of shards, of which a few are read in turns; None keeps their order, and reads
            one at a time.
        shard_index: Number of the data shard, which has different files in every epoch.
        shard_count: Number of data shards; there are at least as many files.
    """

    def __init__(
        self, stream: IterableSpeechDataset, *, seed: int | None, shard_index: int, shard_count: int
    ):
        self._stream, self._seed = stream, seed
        self._shard_index, self._shard_count = shard_index, shard_count
        self._go_to({"epoch": 0, "opened": 0, "waiting": []}, 0)

    def _go_to(self, cursor: State, row: int) -> None:
        self._cursor, self._row = cursor, row
        self._blocks = self._read(cursor)
        self._rows = next(self._blocks)[1] if row else []

    def __next__(self) -> tuple[int, Example | None]:
        """Return the epoch and its next row, which is None after the last row of the epoch."""
        while self._row >= len(self._rows):
            self._cursor, self._rows = next(self._blocks)
            self._row = 0
        self._row += 1
        return self._cursor["epoch"], self._rows[self._row - 1]

    def start_epoch(self, epoch: int) -> None:
        """Move to the beginning of an epoch."""
        self.set_state({"place": {"epoch": epoch, "opened": 0, "waiting": []}, "row": 0})

    def get_state(self) -> State:
        """Return the cursor of the current block, and the number of its rows that were returned."""
        return {"place": self._cursor, "row": self._row}

    def set_state(self, state: State) -> None:
        """Continue at a position from :meth:`get_state`, whose block is read again."""
        self._blocks.close()
        self._go_to(state["place"], state["row"])

    def close(self) -> None:
        """Close the open files."""
        self._blocks.close()

    def _order(self, epoch: int) -> list[int]:
        shards = np.arange(len(self._stream.shards))
        if self._seed is not None:
            shards = np.random.default_rng([self._seed, epoch]).permutation(shards)
        return [int(shard) for shard in shards[self._shard_index :: self._shard_count]]

    def _read(self, start: State) -> Generator[tuple[State, list[Example | None]]]:
        """Yield the rows of blocks with the cursor of each block; the rows are ``[None]`` after each epoch.

        The next block of every open shard is read in the background.
        """
        epoch, opened = start["epoch"], start["opened"]
        waiting: list[tuple[int, Cursor | None]] = [(shard, cursor) for shard, cursor in start["waiting"]]
        readers: dict[int, Generator[tuple[SpeechDataset, Cursor | None]]] = {}
        blocks: dict[int, Future[tuple[SpeechDataset, Cursor | None] | None]] = {}
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
                    block.exception()  # wait, because a running reader cannot be closed
                for reader in readers.values():
                    reader.close()
