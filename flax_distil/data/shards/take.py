"""The first rows of several shards, as one shard."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from flax_distil.data.shards.shard import Block, Cursor, Shard


@dataclass(frozen=True, kw_only=True)
class Take:
    """The first rows of several shards, as one shard.

    Attributes:
        name: Short name.
        shards: Shards, which are read one after the other.
        rows: Maximum number of rows.
    """

    name: str
    shards: tuple[Shard, ...]
    rows: int

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the rows from a cursor (shard index, number of earlier rows, cursor of the shard) on."""
        first, row, *inner = cursor or [0, 0]
        for number in range(first, len(self.shards)):
            with closing(self.shards[number].blocks(inner or None)) as blocks:
                for block in blocks:
                    table = block.table.slice(0, self.rows - row)
                    row += len(table)
                    following = number + (block.after is None)
                    ended = row == self.rows or following == len(self.shards)
                    yield Block(
                        table=table,
                        first_row=row - len(table),
                        after=None if ended else [following, row, *(block.after or [])],
                    )
                    if ended:
                        return
            inner = []
