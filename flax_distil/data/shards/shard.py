"""Shards: files of rows that are read in blocks from front to back, from any earlier cursor on."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flax_distil.storage.remote_files import open_file
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, SourceError, damaged_error

if TYPE_CHECKING:
    import pyarrow

Cursor = list[int]
"""A position in a shard, in a form for JSON; each kind of shard defines the meaning of the numbers."""

BLOCK_ROWS = 64
"""Maximum number of rows of a block."""

BLOCK_BYTES = 32 << 20
"""Maximum number of bytes of a block, estimated from the mean size of rows; a single row may be larger."""


def rows_per_block(rows: int, num_bytes: int) -> int:
    """Return the number of rows of a block within a group of rows.

    Args:
        rows: Number of rows of the group, at least one.
        num_bytes: Size of the group in memory.
    """
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(num_bytes, 1)))


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive rows of a shard.

    Attributes:
        table: At least one row, with encoded audio.
        first_row: Number of the first row in its shard.
        after: Cursor of the next block; None after the last block.
    """

    table: "pyarrow.Table"
    first_row: int
    after: Cursor | None


@runtime_checkable
class Shard(Protocol):
    """One file (or list) of rows; reading it twice gives the same blocks."""

    @property
    def name(self) -> str:
        """A short name, which is unique within the data set."""

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the blocks from a cursor on; from the beginning for None.

        Closing the generator closes the file.

        Raises:
            InputError: If the shard cannot be read, in one sentence.
        """


@dataclass(frozen=True, kw_only=True)
class FileShard:
    """A shard that is one file of Arrow data.

    Attributes:
        name: Short name.
        path: Path or address of the file.
        policy: Policy for repeating failed requests.
    """

    name: str
    path: str
    policy: RetryPolicy = DEFAULT_POLICY

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the blocks from a cursor on; from the beginning for None."""
        import pyarrow

        with self.open() as file:
            try:
                yield from self.read(file, cursor)
            except SourceError:
                raise
            except (pyarrow.ArrowException, OSError, EOFError) as error:
                raise damaged_error(self.path, error) from error

    def open(self) -> Any:
        """Open the file."""
        return open_file(self.path, self.policy)

    def read(self, file: Any, cursor: Cursor | None) -> Iterator[Block]:
        """Yield the blocks of the open file from a cursor on."""
        raise NotImplementedError
