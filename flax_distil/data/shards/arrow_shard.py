"""Read Arrow files as shards: the stream format that ``datasets`` writes, and the file format."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.data.shards.shard import Block, Cursor, FileShard, rows_per_block
from flax_distil.storage.remote_files import is_remote, open_file
from flax_distil.storage.retries import strip_query

if TYPE_CHECKING:
    import pyarrow

FILE_MAGIC = b"ARROW1\0\0"
"""First bytes of the file format, which are followed by the stream format."""


class ArrowShard(FileShard):
    """One Arrow IPC file in the stream format or the file format.

    A cursor has the position of a record batch in bytes, the number of its rows that were read, and the
    number of rows of the file that were read.
    """

    def open(self) -> Any:
        """Open the file; a local file is mapped into memory."""
        import pyarrow

        if is_remote(self.path):
            return pyarrow.PythonFile(open_file(self.path, self.policy), mode="r")
        open_file(self.path, self.policy).close()  # raises a clear error if the file is missing
        return pyarrow.memory_map(self.path)

    def read(self, file: Any, cursor: Cursor | None) -> Iterator[Block]:
        """Yield the blocks of the open file from a cursor on."""
        import pyarrow.ipc

        if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
            file.seek(0)
        schema = pyarrow.ipc.read_schema(file)
        position, done, row = cursor or [file.tell(), 0, 0]
        file.seek(position)
        while not _at_end(file):
            batch = self._read_batch(file, schema)
            after_batch, ended = file.tell(), _at_end(file)
            step = rows_per_block(len(batch), batch.nbytes)
            while done < len(batch):
                rows = batch.slice(done, step)
                done += len(rows)
                row += len(rows)
                after = [position, done, row] if done < len(batch) else [after_batch, 0, row]
                yield Block(
                    table=pyarrow.Table.from_batches([rows]),
                    first_row=row - len(rows),
                    after=None if ended and done == len(batch) else after,
                )
            position, done = after_batch, 0

    def _read_batch(self, file: Any, schema: "pyarrow.Schema") -> "pyarrow.RecordBatch":
        import pyarrow.ipc

        message = pyarrow.ipc.read_message(file)
        if message.type != "record batch":
            raise InputError(
                f"cannot read {strip_query(self.path)!r}: it holds a {message.type}; "
                "write its columns without dictionaries"
            )
        return pyarrow.ipc.read_record_batch(message, schema)


def _at_end(file: Any) -> bool:
    """Return whether no further message follows, because the file ends or the next message has length 0."""
    position = file.tell()
    head = file.read(8)
    file.seek(position)
    return not head or bytes(4) in (head[:4], head[4:])
