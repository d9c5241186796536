"""Data sets of an evaluation that are read from front to back, of which a few rows are in memory."""

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing

from flax_distil.core.errors import InputError
from flax_distil.core.prefetch import prefetch, prefetch_map
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.shards.shard import FileShard, Shard
from flax_distil.data.shards.take import Take
from flax_distil.data.shards.tar_shard import TarShard
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams
from flax_distil.data.stream import IterableSpeechDataset, join_blocks
from flax_distil.evaluation.records import Records, StreamPosition
from flax_distil.storage.remote_files import file_identity

PART_BATCHES = 4
"""Maximum number of batches of a part of a stream, as many as are sorted by length."""

PART_BYTES = 1 << 29
"""Size of the encoded audio at which a part of a stream has no further batch; about two are in memory."""

_IDENTITY_THREADS = 16
_COMMIT = re.compile(r"@[0-9a-f]{40}/")

BEGINNING = StreamPosition(row=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamPart:
    """Consecutive rows of a stream.

    Attributes:
        data: The rows, with encoded audio.
        position: Where they begin.
    """

    data: SpeechDataset
    position: StreamPosition

    @property
    def end(self) -> int:
        """Number of the row behind them."""
        return self.position.row + len(self.data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationStream:
    """A data set that is read from front to back, and as a table its rows have the same numbers and names.

    Attributes:
        source: The data set, in one shard.
        max_rows: Maximum number of rows; None if that is not known.
        is_scored: Tells of a reference whether its row counts; None if all do. Others have no number.
    """

    source: IterableSpeechDataset
    max_rows: int | None = None
    is_scored: Callable[[str], bool] | None = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.source.name

    @functools.cached_property
    def identity(self) -> str:
        """A text that changes when the data set changes; its files are asked for their sizes and tags."""
        shards = list(_files(self.source.shards))
        found = prefetch_map(_shard_identity, shards, threads=_IDENTITY_THREADS, ahead=_IDENTITY_THREADS)
        digest = hashlib.blake2b(digest_size=8)
        for identity in found:
            digest.update(f"{identity}\0".encode())
        return f"{len(shards)} files, {digest.hexdigest()}"

    def parts(self, start: StreamPosition = BEGINNING, *, batch_rows: int) -> Generator[StreamPart]:
        """Yield the rows from a position on in parts, of which the next one is read ahead in a thread.

        From the position of a part on, the parts are those that there were from it on before.

        Args:
            start: Position of a part.
            batch_rows: All parts but the last have a multiple of so many rows.

        Raises:
            InputError: If the stream cannot be read, or has no row that counts.
        """
        with closing(prefetch(self._parts(start, batch_rows), ahead=1)) as parts:
            yield from parts

    def _parts(self, start: StreamPosition, batch_rows: int) -> Generator[StreamPart]:
        held, row = list[_Held](), start.row
        with closing(self._blocks(start)) as blocks:
            for block in blocks:
                held.append(block)
                while rows := _full_part(held, batch_rows):
                    taken, held = _split(held, rows)
                    yield _part(taken, row)
                    row += rows
        if held:
            yield _part(held, row)
        elif not row:
            raise InputError(f"data set {self.name!r} has no row with a reference")

    def _blocks(self, start: StreamPosition) -> Generator["_Held"]:
        """Yield blocks of the shards from a position on, without the rows that do not count."""
        cursor, skipped = start.cursor, start.skipped
        with closing(self.source.blocks(0, cursor)) as blocks:
            for block, after in blocks:
                if self.is_scored is not None:
                    texts = enumerate(block.references())
                    block = block.select([row for row, text in texts if self.is_scored(text or "")])
                found = _Held(data=block, cursor=cursor, skipped=0).without(skipped)
                if len(found):
                    yield found
                cursor, skipped = after, 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Held:
    """Rows at the end of a block.

    Attributes:
        data: The rows.
        cursor: From where the block can be read again.
        skipped: Number of its rows before them.
    """

    data: SpeechDataset
    cursor: list[int] | None
    skipped: int

    def __len__(self) -> int:
        return len(self.data)

    @functools.cached_property
    def size(self) -> int:
        """Bytes of their encoded audio."""
        return sum(self.data.audio_sizes())

    def first(self, rows: int) -> "_Held":
        """Return the first rows."""
        return dataclasses.replace(self, data=self.data.select(range(min(rows, len(self)))))

    def without(self, rows: int) -> "_Held":
        """Return what is behind the first rows."""
        if not rows:
            return self
        return dataclasses.replace(
            self, data=self.data.select(range(rows, len(self))), skipped=self.skipped + rows
        )


def _full_part(held: Sequence[_Held], batch_rows: int) -> int:
    """Return the number of rows that make a part; 0 if there are not enough yet."""
    rows, most = sum(map(len, held)), PART_BATCHES * batch_rows
    if rows >= most:
        return most
    return rows - rows % batch_rows if sum(block.size for block in held) >= PART_BYTES else 0


def _split(held: Sequence[_Held], rows: int) -> tuple[list[_Held], list[_Held]]:
    """Divide rows into the first ones, at most so many, and the rest."""
    taken, rest = list[_Held](), list[_Held]()
    for block in held:
        own = min(len(block), rows)
        rows -= own
        taken += [block.first(own)] if own else []
        rest += [block.without(own)] if own < len(block) else []
    return taken, rest


def _part(blocks: Sequence[_Held], row: int) -> StreamPart:
    position = StreamPosition(row=row, cursor=blocks[0].cursor, skipped=blocks[0].skipped)
    return StreamPart(data=join_blocks([block.data for block in blocks]), position=position)


EvaluationSet = SpeechDataset | EvaluationStream


def open_streams(spec: DatasetSpec) -> list[EvaluationStream]:
    """Open every data set of a specification; the first rows are read, to check that the columns exist.

    Raises:
        InputError: If :func:`flax_distil.data.sources.load_datasets.load_streams` raises it.
    """
    return [
        EvaluationStream(source=stream, max_rows=spec.max_samples)
        for stream in load_streams(spec, as_one_shard=True)
    ]


def most_rows(data_sets: Iterable[EvaluationSet]) -> int | None:
    """Return the maximum number of rows of one of several data sets; None if that is not known."""
    sizes = [data.max_rows if isinstance(data, EvaluationStream) else len(data) for data in data_sets]
    return None if None in sizes else max(size or 0 for size in sizes)


def is_finished(records: Records, data: EvaluationSet) -> bool:
    """Return whether all rows of a data set have a record."""
    rows = len(data) if isinstance(data, SpeechDataset) else records.stream_rows
    return rows is not None and len(records.done) >= rows


def restart_position(records: Sequence[Records]) -> StreamPosition:
    """Return where the last known part of a stream begins before which all of the records have every row.

    Args:
        records: At least one model's under one condition.
    """
    done = set.intersection(*(part.done for part in records))
    row = next(row for row in itertools.count() if row not in done)
    known = [position for part in records for position in part.positions]
    before = [position for position in known if position.row <= row and not position.is_end]
    return max(before, key=lambda position: position.row, default=BEGINNING)


def _files(shards: Iterable[Shard]) -> Generator[Shard]:
    for shard in shards:
        if isinstance(shard, Take):
            yield from _files(shard.shards)
        else:
            yield shard


def _shard_identity(shard: Shard) -> str:
    if isinstance(shard, FileShard | TarShard):
        is_fixed = _COMMIT.search(shard.path) is not None
        return f"{shard.name} {shard.path if is_fixed else file_identity(shard.path, shard.policy)}"
    digest = hashlib.blake2b(shard.name.encode(), digest_size=8)
    with closing(shard.blocks()) as blocks:
        for block in blocks:
            digest.update(repr(block.table.to_pylist()).encode())
    return digest.hexdigest()
