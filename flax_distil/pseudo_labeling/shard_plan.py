"""A corpus in units of work: always the same ones, however many processes share them or often a job stops."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset, concatenate_parts
from flax_distil.data.shards.shard import Cursor
from flax_distil.data.stream import IterableSpeechDataset

MAX_SHARD_BYTES = 1 << 28
"""A unit ends once its encoded audio reaches 256 MiB: as FLAC, the form of what is cut, at most some GB."""

ShardKey = tuple[int, ...]
"""(unit,) of a table, (shard, unit) of a stream, behind the number of its part where there are several;
ascending in the order of the corpus."""

Position = tuple[Cursor | None, int]
"""Where a unit of a stream begins: the cursor of a block, and how many of its rows belong to units before."""


@dataclass(frozen=True, kw_only=True)
class LabelShard:
    """Rows that are worked on, and finished, together.

    Attributes:
        key: Its number.
        data: At least one row, audio still encoded.
        after: Of a stream: where the next unit of the same shard begins; None behind the last.
    """

    key: ShardKey
    data: SpeechDataset
    after: Position | None = None


class TableShardPlan:
    """The units of a data set with random access.

    Args:
        data: The rows.
        samples_per_shard: A unit ends after so many rows, or at :data:`MAX_SHARD_BYTES`.

    Attributes:
        sizes: Bytes of each row's recording.
    """

    def __init__(self, data: SpeechDataset, *, samples_per_shard: int):
        self._data = data
        self._units: list[range] = []
        self.sizes = data.audio_sizes()
        first, filling = 0, _ShardSize(samples_per_shard)
        for row, size in enumerate(self.sizes):
            if filling.is_full_with(size) or row + 1 == len(data):
                self._units.append(range(first, row + 1))
                first = row + 1

    @property
    def samples(self) -> int:
        """Rows of all units."""
        return len(self._data)

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the units that are not done yet and that this process has to do.

        Args:
            done: The units that are done.
            index: Number of this process …
            count: … of how many.
        """
        numbers = [number for number in range(len(self._units)) if (number,) not in done]
        for number in numbers[index::count]:
            yield LabelShard(key=(number,), data=self._data.select(self._units[number]))


class StreamShardPlan:
    """The units of a stream: none reaches over the end of a shard.

    Args:
        stream: The shards.
        samples_per_shard: As for :class:`TableShardPlan`.
    """

    def __init__(self, stream: IterableSpeechDataset, *, samples_per_shard: int):
        self._stream = stream
        self._samples_per_shard = samples_per_shard

    @property
    def shards(self) -> int:
        """How many there are; how many rows is only known at the end."""
        return len(self._stream.shards)

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the units of this process's shards, each from where it was left.

        Args:
            done: The units that are done, each with its ``after``.
            index: Number of this process …
            count: … of how many.

        Raises:
            InputError: if a shard cannot be read, or its columns are not those of its first block.
        """
        starts: dict[int, tuple[int, Position]] = {}
        for shard in range(len(self._stream.shards)):
            number = 0
            place: Position | None = (None, 0)
            while place is not None and (shard, number) in done:
                place = done[shard, number]
                number += 1
            if place is not None:
                starts[shard] = number, place
        for shard in list(starts)[index::count]:
            yield from self._units(shard, *starts[shard])

    def _units(self, shard: int, number: int, place: Position) -> Iterator[LabelShard]:
        cursor, first = place
        parts: list[SpeechDataset] = []
        filling = _ShardSize(self._samples_per_shard)
        for block, after in self._stream.blocks(shard, cursor):
            sizes = block.audio_sizes()
            for row in range(first, len(block)):
                if not filling.is_full_with(sizes[row]):
                    continue
                parts.append(block.select(range(first, row + 1)))
                first = row + 1
                rest: Position | None = cursor, first
                if first == len(block):
                    rest = None if after is None else (after, 0)
                yield LabelShard(key=(shard, number), data=_concatenate(parts), after=rest)
                parts, number = [], number + 1
            if first < len(block):
                parts.append(block.select(range(first, len(block))))
            cursor, first = after, 0
        if parts:
            yield LabelShard(key=(shard, number), data=_concatenate(parts))


SplitShardPlan = TableShardPlan | StreamShardPlan


class ShardPlan:
    """The units of several tables or streams, one after the other; none reaches over the end of a part.

    Args:
        parts: Units of each, at least one.
    """

    def __init__(self, parts: Sequence[SplitShardPlan]):
        self._parts = parts

    @property
    def samples(self) -> int | None:
        """Rows of all units; None where a stream's are not counted before."""
        sizes = [part.samples if isinstance(part, TableShardPlan) else None for part in self._parts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def shards(self) -> int | None:
        """Shards of all streams; None where there is a table."""
        counts = [part.shards if isinstance(part, StreamShardPlan) else None for part in self._parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def shard_number(self, key: ShardKey) -> int:
        """Return how many shards lie before that of a unit of a stream."""
        before = self._parts[: key[0]]
        return sum(part.shards for part in before if isinstance(part, StreamShardPlan)) + key[1]

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the units of this process that are not done yet, with the number of their part in their keys.

        Args:
            done: The units that are done, each with its ``after``.
            index: Number of this process …
            count: … of how many.

        Raises:
            InputError: as :meth:`StreamShardPlan.remaining`.
        """
        for number, part in enumerate(self._parts):
            own = {key[1:]: place for key, place in done.items() if key[0] == number}
            for unit in part.remaining(own, index=index, count=count):
                yield dataclasses.replace(unit, key=(number, *unit.key))


class _ShardSize:
    """Tells with which row a unit is full, and then begins the next."""

    def __init__(self, samples_per_shard: int):
        self._limit = samples_per_shard
        self._rows = self._bytes = 0

    def is_full_with(self, size: int) -> bool:
        self._rows += 1
        self._bytes += size
        full = self._rows == self._limit or self._bytes >= MAX_SHARD_BYTES
        if full:
            self._rows = self._bytes = 0
        return full


def _concatenate(parts: Sequence[SpeechDataset]) -> SpeechDataset:
    import datasets

    tables: list[Any] = [part.table for part in parts]
    try:
        return concatenate_parts(parts, datasets.concatenate_datasets(tables))
    except ValueError as error:
        raise InputError(
            f"the files of data set {parts[0].name!r} have columns of different types: {error}"
        ) from error
