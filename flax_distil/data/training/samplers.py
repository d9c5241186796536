"""The endless order of training samples, over tables, streams and mixtures of both.

A sampler yields indices of samples; no audio is decoded. Their order is cheap to compute again, so a position
consists of a few numbers. Several data shards share an order (see
:mod:`flax_distil.data.training.global_batches`): each has its own part of it, and no two have the same sample
of an epoch.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from flax_distil.data.preprocessing.packing import PackedRows

State = dict[str, Any]
"""The position of a sampler, in a form for JSON."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """The index of one training sample.

    Attributes:
        source: Number of the data set that the sample comes from.
        epoch: Number of complete passes over that data set.
        number: Number of the sample in its table; -1 in a stream.
        rows: Rows of a streamed sample; None for a table, where they are read when they are needed.
    """

    source: int
    epoch: int
    number: int = -1
    rows: PackedRows | None = None


class Sampler(grain.DatasetIterator[SampleIndex]):
    """An endless iterator over sample indices; its state can be written as JSON."""

    def start_epoch(self, epoch: int) -> None:
        """Move to the beginning of an epoch."""
        raise NotImplementedError

    def skip(self, count: int) -> None:
        """Go on without the next ``count`` samples."""
        for _ in range(count):
            next(self)


class ShuffledSampler(Sampler):
    """Yields the samples of tables: one table after the other, or all of them shuffled together.

    Each pass has every sample once. Data shard i of n has positions i, i + n, i + 2n, ... of the endless
    order, so all of them together have the samples that a single one would have::

        epoch       0                   1
        position    0   1   2   3   4   5   6   7   8   9
        data shard  0   1   0   1   0   1   0   1   0   1

    Args:
        sizes: Number of samples of each table.
        first_source: Number of the first table among the data sets.
        seed: Seed of the order; None keeps the order of the tables.
        shard_index: Number of this data shard.
        shard_count: Number of data shards.
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
            # grain adds the number of the epoch to the seed, so without hashing, neighboring seeds would
            # share epochs.
            order = order.shuffle(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._order = order.repeat()
        self._shard_index, self._shard_count = shard_index, shard_count
        self._drawn = 0

    def __next__(self) -> SampleIndex:
        position = self._shard_index + self._drawn * self._shard_count
        self._drawn += 1
        number = int(self._order[position])
        table = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[table - 1]) if table else 0
        return SampleIndex(
            source=self._first_source + table, epoch=position // self._total, number=number - before
        )

    def skip(self, count: int) -> None:
        """Go on without the next ``count`` samples, which are not looked up."""
        self._drawn += count

    def start_epoch(self, epoch: int) -> None:
        """Move to the first position of this data shard in an epoch."""
        self._drawn = -(-(epoch * self._total - self._shard_index) // self._shard_count)

    def get_state(self) -> State:
        """Return the number of samples that were drawn."""
        return {"drawn": self._drawn}

    def set_state(self, state: State) -> None:
        """Continue at a position from :meth:`get_state`."""
        self._drawn = state["drawn"]


class MixtureSampler(Sampler):
    """Yields samples of several data sets in fixed proportions, interleaved as evenly as possible.

    Args:
        parents: Samplers of the data sets.
        weights: Positive weight of each data set; only their proportions matter.
        restart: True starts a new epoch of all data sets when the first of them is exhausted
            (``first_exhausted``), so no sample is repeated within an epoch; False lets each data set start
            its own epochs (``all_exhausted``).
    """

    def __init__(self, parents: Sequence[Sampler], weights: Sequence[float], *, restart: bool):
        super().__init__(list(parents))
        self._weights, self._restart = np.array(weights, np.float64), restart
        self._drawn, self._pass = np.zeros(len(parents), np.int64), 0

    def __next__(self) -> SampleIndex:
        parent = int(np.argmin((self._drawn + 1) / self._weights))
        index: SampleIndex = next(self._parents[parent])
        if self._restart and index.epoch > self._pass:
            self.start_epoch(index.epoch)
            return next(self)
        self._drawn[parent] += 1
        return index

    def start_epoch(self, epoch: int) -> None:
        """Move to the beginning of an epoch in all data sets."""
        self._pass = epoch
        for parent in self._parents:
            parent.start_epoch(epoch)

    def get_state(self) -> State:
        """Return the position of every data set, and the number of samples of each that were drawn."""
        return {
            "drawn": self._drawn.tolist(),
            "pass": self._pass,
            "parents": [parent.get_state() for parent in self._parents],
        }

    def set_state(self, state: State) -> None:
        """Continue at a position from :meth:`get_state`."""
        self._drawn, self._pass = np.array(state["drawn"], np.int64), state["pass"]
        for parent, position in zip(self._parents, state["parents"], strict=True):
            parent.set_state(position)
