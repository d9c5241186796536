"""Parquet files read as shards: one block is at most a row group."""

from collections.abc import Generator
from dataclasses import dataclass

from flax_distil.data.shards import BLOCK_ROWS, Block, Cursor


@dataclass(frozen=True, kw_only=True)
class ParquetShard:
    """One Parquet file.

    Attributes:
        name: Short name.
        path: The file.
    """

    name: str
    path: str

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the rows from a cursor (row group, rows of it that were read, rows of the file) on."""
        import pyarrow
        import pyarrow.parquet

        first_group, done, row = cursor or [0, 0, 0]
        with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False) as file:
            for group in range(first_group, file.num_row_groups):
                size, seen = file.metadata.row_group(group).num_rows, 0
                for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group]):
                    seen += len(batch)
                    if seen <= done:
                        continue
                    last = seen == size
                    after = [group + 1, 0, row + len(batch)] if last else [group, seen, row + len(batch)]
                    ended = last and group + 1 == file.num_row_groups
                    yield Block(
                        table=pyarrow.Table.from_batches([batch]),
                        first_row=row,
                        after=None if ended else after,
                    )
                    row += len(batch)
                done = 0
