"""Files of rows that are read from front to back in blocks, from any cursor that was reached before."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow

Cursor = list[int]
"""A place in a shard, as JSON takes it; what the numbers mean is the shard's own business."""

BLOCK_ROWS = 64
"""Most rows of a block."""

BLOCK_BYTES = 32 << 20
"""Most bytes of a block, as far as the mean of the rows around it tells; one row may be larger."""


def rows_per_block(rows: int, num_bytes: int) -> int:
    """Return how many rows of a group make a block.

    Args:
        rows: Rows of the group, at least one.
        num_bytes: Their size in memory.
    """
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(num_bytes, 1)))


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that follow each other in a shard.

    Attributes:
        table: At least one row, audio still encoded.
        first_row: Number of the first row in its shard.
        after: Where the next block begins; None behind the last.
    """

    table: "pyarrow.Table"
    first_row: int
    after: Cursor | None


@runtime_checkable
class Shard(Protocol):
    """One file (or listing) of rows. Reading it twice gives the same blocks."""

    @property
    def name(self) -> str:
        """Short, and no other shard of the source has it."""

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the blocks from a cursor on; from the beginning for None.

        Closing the iterator frees what it holds.

        Raises:
            InputError: if the shard cannot be read, in one sentence.
        """
