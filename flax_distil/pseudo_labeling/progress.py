"""The progress bar of pseudo-labelling: samples, hours, speed of the last minute, time left."""

import time
from collections import deque
from types import TracebackType

import jax
from tqdm import tqdm

from flax_distil.core.console import is_quiet
from flax_distil.pseudo_labeling.shard_plan import ShardPlan
from flax_distil.pseudo_labeling.shard_reader import ShardBatch

_RATE_SECONDS = 60.0


class LabelProgress:
    """Shown by the first process; what the others do meanwhile is taken to be as much.

    Args:
        name: Name of the data set.
        plan: Shards of the source. The number of samples of a stream is not known, so files are counted
            instead of showing the time left.
        done: Number of samples that were labeled before.
        processes: Number of processes that share the work.
    """

    def __init__(self, name: str, plan: ShardPlan, *, done: int, processes: int):
        self._plan = plan
        quiet = True if jax.process_index() or is_quiet() else None  # None: unless there is no terminal
        self._bar = tqdm(total=plan.samples, initial=done, desc=name, unit=" samples", disable=quiet)
        self._processes = processes
        self._seconds = 0.0
        self._in_shard = self._counted = 0
        self._recent = deque([(time.monotonic(), 0.0)])

    def __enter__(self) -> "LabelProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, batch: ShardBatch) -> None:
        """Count a transcribed batch."""
        self._seconds += self._processes * sum(recording.seconds for recording in batch.recordings)
        self._in_shard += len(batch.recordings)
        # Recordings are cut, joined and skipped, so samples are counted as their shard advances.
        samples, expected = len(batch.in_progress.shard.data), batch.in_progress.recordings
        counted = samples if batch.last else samples * self._in_shard // max(1, expected)
        left = None if self._bar.total is None else self._bar.total - self._bar.n
        advance = self._processes * (counted - self._counted)
        self._bar.update(advance if left is None else min(left, advance))
        self._counted = counted
        if batch.last:
            self._in_shard = self._counted = 0
        file, files = "", self._plan.source_files
        if files is not None:
            file = f", file {self._plan.source_file_number(batch.in_progress.shard.key) + 1} of {files}"
        self._bar.set_postfix_str(f"{self._seconds / 3600:.2f} h, RTFx {self._rate():.1f}{file}")

    def _rate(self) -> float:
        now = time.monotonic()
        self._recent.append((now, self._seconds))
        while len(self._recent) > 2 and now - self._recent[1][0] > _RATE_SECONDS:
            self._recent.popleft()
        (start, before), (end, after) = self._recent[0], self._recent[-1]
        return (after - before) / max(end - start, 1e-9)
