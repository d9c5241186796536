"""Divide a corpus into shards that depend neither on the number of processes nor on where a job stopped."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.shards.shard import Cursor
from flax_distil.data.stream import IterableSpeechDataset, join_blocks

MAX_SHARD_BYTES = 1 << 28
"""A shard ends when its encoded audio reaches 256 MiB; recordings that are cut grow when they become FLAC."""

ShardKey = tuple[int, ...]
"""(shard,) of a table or (source file, shard) of a stream, behind the number of the split where there are
several. Keys ascend in the order of the corpus."""

Position = tuple[Cursor | None, int]
"""Where a shard of a stream begins: the cursor of a block, and how many of its rows are in earlier shards."""


@dataclass(frozen=True, kw_only=True)
class LabelShard:
    """Rows of the source that become one file.

    Attributes:
        key: Number of the shard.
        data: At least one row, with encoded audio.
        after: Where the next shard of the same source file begins; None behind the last one, and for tables.
    """

    key: ShardKey
    data: SpeechDataset
    after: Position | None = None


class TableShardPlan:
    """The shards of a data set with random access.

    Args:
        data: The rows.
        samples_per_shard: Rows of a shard, which ends earlier at :data:`MAX_SHARD_BYTES`.

    Attributes:
        sizes: Bytes of each row's recording.
    """

    def __init__(self, data: SpeechDataset, *, samples_per_shard: int):
        self._data = data
        self._ranges: list[range] = []
        self.sizes = data.audio_sizes()
        first, filling = 0, _ShardSize(samples_per_shard)
        for row, size in enumerate(self.sizes):
            if filling.is_full_with(size) or row + 1 == len(data):
                self._ranges.append(range(first, row + 1))
                first = row + 1

    @property
    def samples(self) -> int:
        """Number of rows of all shards."""
        return len(self._data)

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the shards that are not done yet and belong to this process.

        Args:
            done: Finished shards.
            index: Number of this process.
            count: Number of processes.
        """
        numbers = [number for number in range(len(self._ranges)) if (number,) not in done]
        for number in numbers[index::count]:
            yield LabelShard(key=(number,), data=self._data.select(self._ranges[number]))


class StreamShardPlan:
    """The shards of a stream; none contains rows of two source files.

    Args:
        stream: The source files.
        samples_per_shard: As for :class:`TableShardPlan`.
    """

    def __init__(self, stream: IterableSpeechDataset, *, samples_per_shard: int):
        self._stream = stream
        self._samples_per_shard = samples_per_shard

    @property
    def source_files(self) -> int:
        """Number of source files; the number of rows is known only at the end."""
        return len(self._stream.shards)

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the shards of this process's source files, behind those that are done.

        Args:
            done: Finished shards, each with its ``after``.
            index: Number of this process.
            count: Number of processes.

        Raises:
            InputError: If a source file cannot be read, or its columns change after its first block.
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
            yield from self._shards_of_file(shard, *starts[shard])

    def _shards_of_file(self, shard: int, number: int, place: Position) -> Iterator[LabelShard]:
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
                yield LabelShard(key=(shard, number), data=join_blocks(parts), after=rest)
                parts, number = [], number + 1
            if first < len(block):
                parts.append(block.select(range(first, len(block))))
            cursor, first = after, 0
        if parts:
            yield LabelShard(key=(shard, number), data=join_blocks(parts))


SplitShardPlan = TableShardPlan | StreamShardPlan


class ShardPlan:
    """The shards of several splits, one split after the other; none contains rows of two splits.

    Args:
        splits: Shards of each split, at least one.
    """

    def __init__(self, splits: Sequence[SplitShardPlan]):
        self._splits = splits

    @property
    def samples(self) -> int | None:
        """Number of rows of all shards; None if a source is a stream, which is not counted in advance."""
        sizes = [split.samples if isinstance(split, TableShardPlan) else None for split in self._splits]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def source_files(self) -> int | None:
        """Number of source files of all streams; None if a split is a table."""
        counts = [
            split.source_files if isinstance(split, StreamShardPlan) else None for split in self._splits
        ]
        return None if None in counts else sum(count or 0 for count in counts)

    def source_file_number(self, key: ShardKey) -> int:
        """Return how many source files lie before that of a shard of a stream."""
        before = self._splits[: key[0]]
        return sum(split.source_files for split in before if isinstance(split, StreamShardPlan)) + key[1]

    def remaining(
        self, done: Mapping[ShardKey, Position | None], *, index: int, count: int
    ) -> Iterator[LabelShard]:
        """Yield the shards of this process that are not done yet, with the number of the split in their keys.

        Args:
            done: Finished shards, each with its ``after``.
            index: Number of this process.
            count: Number of processes.

        Raises:
            InputError: As :meth:`StreamShardPlan.remaining`.
        """
        for number, split in enumerate(self._splits):
            own = {key[1:]: place for key, place in done.items() if key[0] == number}
            for shard in split.remaining(own, index=index, count=count):
                yield dataclasses.replace(shard, key=(number, *shard.key))


class _ShardSize:
    """Counts the rows and bytes of a shard, and tells with which row it is full."""

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
