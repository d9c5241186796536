"""Read Parquet files as shards; each block is a part of one row group."""

from collections.abc import Iterator
from typing import Any

from flax_distil.data.shards.shard import Block, Cursor, FileShard, rows_per_block

COLUMN_BUFFER_BYTES = 1 << 20
"""Size of the read-ahead buffer of each column; without it, a whole row group would be in memory."""


class ParquetShard(FileShard):
    """One Parquet file.

    A cursor has the index of a row group, the number of its rows that were read, and the number of rows of
    the file that were read.
    """

    def read(self, file: Any, cursor: Cursor | None) -> Iterator[Block]:
        """Yield the blocks of the open file from a cursor on."""
        import pyarrow
        import pyarrow.parquet

        first_group, done, row = cursor or [0, 0, 0]
        parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=COLUMN_BUFFER_BYTES)
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        total = sum(sizes)
        for group in range(first_group, len(sizes)):
            if not sizes[group]:
                continue
            rows = rows_per_block(sizes[group], parquet.metadata.row_group(group).total_byte_size)
            seen = 0
            for batch in parquet.iter_batches(rows, row_groups=[group]):
                seen += len(batch)
                if seen <= done:
                    continue
                row += len(batch)
                after = [group + 1, 0, row] if seen == sizes[group] else [group, seen, row]
                yield Block(
                    table=pyarrow.Table.from_batches([batch]),
                    first_row=row - len(batch),
                    after=None if row == total else after,
                )
            done = 0
