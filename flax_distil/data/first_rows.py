"""The first rows of several shards."""

from collections.abc import Iterator
from dataclasses import dataclass

from flax_distil.data.shards import Block, Cursor, Shard


@dataclass(frozen=True, kw_only=True)
class FirstRows:
    """The first rows of several shards, as one shard.

    Attributes:
        name: Short name.
        shards: Read one after the other.
        rows: No more than these are given.
    """

    name: str
    shards: tuple[Shard, ...]
    rows: int

    def blocks(self, cursor: Cursor | None = None) -> Iterator[Block]:
        """Yield the rows from a cursor (shard, rows given, then the shard's own cursor) on."""
        first, row, *inner = cursor or [0, 0]
        for number in range(first, len(self.shards)):
            for block in self.shards[number].blocks(inner or None):
                table = block.table.slice(0, self.rows - row)
                following = [number + 1] if block.after is None else [number]
                place = [following[0], row + len(table), *(block.after or [])]
                ended = row + len(table) == self.rows or following[0] == len(self.shards)
                yield Block(table=table, first_row=row, after=None if ended else place)
                row += len(table)
                if ended:
                    return
            inner = []
