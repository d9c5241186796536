"""Which samples make the global batches of a run, and which of them a process reads.

The samples of a run are divided into *data shards*: one where all data are tables; of streams, as many as
processes read them when the run began, each with files of its own. A data shard has an endless order of its
own, and every global batch takes the same number of samples from each of them. So which samples make a batch
follows from a few numbers that a checkpoint holds, and any number of processes can go on with them::

    row of the batch   0   1   2   3   4   5   6   7   8   9  10  11
    data shard         0   0   0   0   0   0   1   1   1   1   1   1
    process            0   0   0   0   1   1   1   1   2   2   2   2

Process 1 draws six samples from both data shards for each batch, and decodes its own two of each.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grain

from flax_distil.core.errors import InputError
from flax_distil.data.training.samplers import SampleIndex, Sampler, State
from flax_distil.data.training.training_sources import StreamSource, TrainingData

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """The rows that a process has of one data shard, in every global batch.

    Attributes:
        shard: Number of the data shard.
        before: Number of its rows that precede them, which other processes have.
        own: Number of the rows of this process.
        after: Number of its rows that follow them.
    """

    shard: int
    before: int
    own: int
    after: int


def rows_by_shard(rows: range, *, global_batch_size: int, num_data_shards: int) -> list[ShardRows]:
    """Return from which data shards the rows of a process come.

    Args:
        rows: Rows of the global batch that the process has.
        global_batch_size: Number of rows of the global batch.
        num_data_shards: Number of data shards of the run.

    Raises:
        InputError: If a global batch cannot take as many samples from each data shard.
    """
    size, remainder = divmod(global_batch_size, num_data_shards)
    if remainder:
        raise InputError(
            f"a batch of {global_batch_size} samples cannot be divided over the {num_data_shards} parts in "
            "which this run reads its streams: choose a multiple of them"
        )
    found = []
    for shard in range(rows.start // size, -(-rows.stop // size)):
        first, last = shard * size, (shard + 1) * size
        start, stop = max(rows.start, first), min(rows.stop, last)
        found.append(ShardRows(shard=shard, before=start - first, own=stop - start, after=last - stop))
    return found


def choose_num_data_shards(data: TrainingData, processes: int) -> int:
    """Return into how many data shards a new run divides its samples.

    Args:
        data: The training data.
        processes: Number of processes that read different rows.

    Returns:
        1 without streams. Otherwise the number of processes, so that each reads files of its own; with fewer
        files, the largest number that divides the processes and that the files suffice for.
    """
    files = [len(source.stream.shards) for source in data.sources if isinstance(source, StreamSource)]
    if not files:
        return 1
    shards = max(n for n in range(1, min(processes, *files) + 1) if processes % n == 0)
    if shards < processes:
        log.warning(
            "a stream of the training data has %d files for %d processes: each file is read by %d of them; "
            "write it as at least as many files as processes to read it once",
            min(files), processes, processes // shards,
        )  # fmt: skip
    return shards


class GlobalBatchSampler(grain.DatasetIterator[SampleIndex]):
    """Yields the samples of the rows of one process, global batch after global batch.

    Its position is that after the last batch of which all samples were taken.

    Args:
        rows: The rows of the process by data shard, at least one.
        make: Function that returns the sampler of a data shard.
    """

    def __init__(self, rows: Sequence[ShardRows], make: Callable[[int], Sampler]):
        self._samplers = {part.shard: make(part.shard) for part in rows}
        super().__init__([*self._samplers.values()])
        self._rows = rows
        self._waiting: deque[SampleIndex] = deque()
        self._state = self._position()

    def __next__(self) -> SampleIndex:
        if not self._waiting:
            self._waiting.extend(self._draw())
        index = self._waiting.popleft()
        if not self._waiting:
            self._state = self._position()
        return index

    def get_state(self) -> State:
        """Return the position of every data shard that this process reads, by its number."""
        return self._state

    def set_state(self, state: State) -> None:
        """Continue at a position that :meth:`get_state` of any process returned for these data shards."""
        self._waiting.clear()
        for shard, sampler in self._samplers.items():
            sampler.set_state(state[str(shard)])
        self._state = self._position()

    def _draw(self) -> list[SampleIndex]:
        """Draw one global batch of every data shard, and return the samples of this process."""
        samples = []
        for part in self._rows:
            sampler = self._samplers[part.shard]
            sampler.skip(part.before)
            samples += [next(sampler) for _ in range(part.own)]
            sampler.skip(part.after)
        return samples

    def _position(self) -> State:
        return {str(shard): sampler.get_state() for shard, sampler in self._samplers.items()}


def merge_positions(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the position of a run, given those of all its processes.

    Args:
        parts: One per process with rows of its own, each with ``drawn`` and ``shards``.
    """
    drawn: list[int] = []
    shards: dict[str, State] = {}
    for part in parts:
        drawn = [sum(pair) for pair in zip(drawn or [0] * len(part["drawn"]), part["drawn"], strict=True)]
        shards = part["shards"] | shards
    return {"drawn": drawn, "shards": dict(sorted(shards.items(), key=lambda item: int(item[0])))}
