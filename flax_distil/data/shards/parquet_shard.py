"""Read Parquet files as shards; each block lies within one row group."""

from collections.abc import Generator
from dataclasses import dataclass

from flax_distil.data.remote.files import open_file
from flax_distil.data.remote.retries import DEFAULT_POLICY, RetryPolicy, SourceError, damaged
from flax_distil.data.shards.shard import Block, Cursor, rows_per_block

COLUMN_BUFFER_BYTES = 1 << 20
"""Read-ahead within each column; without one, a row group would be in memory whole."""


@dataclass(frozen=True, kw_only=True)
class ParquetShard:
    """One Parquet file.

    Attributes:
        name: Short name.
        path: The file: a path or an address.
        policy: How failed requests are repeated.
    """

    name: str
    path: str
    policy: RetryPolicy = DEFAULT_POLICY

    def blocks(self, cursor: Cursor | None = None) -> Generator[Block]:
        """Yield the rows from a cursor (row group, rows of it that were read, rows of the file) on."""
        import pyarrow

        with open_file(self.path, self.policy) as file:
            try:
                yield from self._blocks(file, *(cursor or [0, 0, 0]))
            except SourceError:
                raise
            except (pyarrow.ArrowException, OSError) as error:
                raise damaged(self.path, error) from error

    def _blocks(self, source: object, first_group: int, done: int, row: int) -> Generator[Block]:
        import pyarrow
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=COLUMN_BUFFER_BYTES)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        total = sum(sizes)
        for group in range(first_group, len(sizes)):
            if not sizes[group]:
                continue
            rows = rows_per_block(sizes[group], file.metadata.row_group(group).total_byte_size)
            seen = 0
            for batch in file.iter_batches(rows, row_groups=[group]):
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
