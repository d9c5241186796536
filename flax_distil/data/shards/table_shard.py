"""Read tables in memory as shards; they list the recordings of manifests and folders by path."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flax_distil.data.shards.shard import BLOCK_ROWS, Block, Cursor

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class TableShard:
    """A table whose recordings are paths or addresses.

    Attributes:
        name: Short name.
        table: The rows.
    """

    name: str
    table: "pyarrow.Table"

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the rows from a cursor on, which is the number of earlier rows."""
        (first,) = cursor or [0]
        for row in range(first, len(self.table), BLOCK_ROWS):
            after = row + BLOCK_ROWS
            yield Block(
                table=self.table.slice(row, BLOCK_ROWS),
                first_row=row,
                after=[after] if after < len(self.table) else None,
            )
