"""Record samples that are left out: an unusable file is counted and listed, and does not end a command."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from flax_distil.data.decoded_example import SampleError
from flax_distil.data.example import Example

REMEMBERED_SAMPLES = 10_000
"""Maximum number of samples that are remembered individually, which takes a few megabytes."""


@dataclass(frozen=True, kw_only=True)
class SkippedSample:
    """One sample that was left out.

    Attributes:
        data_set: Short name of its data set.
        index: Number of its row in the data set; in a streamed one, within its block.
        sample_id: Stable name of the sample.
        kind: A few words by which samples are counted, such as ``"unreadable audio"``.
        reason: Reason why this sample cannot be used.
    """

    data_set: str = ""
    index: int
    sample_id: str
    kind: str
    reason: str


class SkippedSamples:
    """Collects skipped samples; any thread may add to it.

    A sample that is skipped again in the next epoch counts once. To limit memory, only the first
    :data:`REMEMBERED_SAMPLES` are remembered; others count each time they are skipped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_row: dict[tuple[str, str, int], SkippedSample] = {}
        # By data set, by kind.
        self._forgotten: dict[str, Counter[str]] = {}

    def __len__(self) -> int:
        return sum(self.counts().values())

    @classmethod
    def merge(cls, states: Iterable[dict[str, Any]]) -> "SkippedSamples":
        """Return the skipped samples of several processes, or of earlier parts of the training, together.

        Args:
            states: Results of :meth:`get_state`.
        """
        joined = cls()
        for state in states:
            for sample in state["samples"]:
                joined.add(**sample)
            for data_set, counts in state["forgotten"].items():
                joined._forgotten.setdefault(data_set, Counter()).update(counts)
        return joined

    def get_state(self) -> dict[str, Any]:
        """Return everything in a form for JSON."""
        with self._lock:
            forgotten = {data_set: dict(counts) for data_set, counts in self._forgotten.items()}
        return {"samples": [asdict(sample) for sample in self.samples()], "forgotten": forgotten}

    def add(self, *, data_set: str = "", index: int, sample_id: str, kind: str, reason: str) -> None:
        """Record one sample; later records of the same row are ignored."""
        sample = SkippedSample(data_set=data_set, index=index, sample_id=sample_id, kind=kind, reason=reason)
        row = (data_set, sample_id, index)
        with self._lock:
            if row in self._by_row or len(self._by_row) < REMEMBERED_SAMPLES:
                self._by_row.setdefault(row, sample)
            else:
                self._forgotten.setdefault(data_set, Counter())[kind] += 1

    def reject(self, row: Example, error: SampleError, *, data_set: str = "") -> None:
        """Record a row that is left out, and the reason."""
        self.add(
            data_set=data_set, index=row.index, sample_id=row.sample_id, kind=error.kind, reason=error.reason
        )

    def samples(self) -> list[SkippedSample]:
        """Return the samples that were skipped and are remembered, in order of data set and row number."""
        with self._lock:
            samples = list(self._by_row.values())
        return sorted(samples, key=lambda sample: (sample.data_set, sample.index, sample.sample_id))

    def counts(self) -> dict[str, int]:
        """Return the number of skipped samples of each kind, the most frequent first."""
        return dict(sum(self._counts().values(), Counter()).most_common())

    def _counts(self) -> dict[str, Counter[str]]:
        """Return the number of skipped samples of each kind by data set."""
        with self._lock:
            counts = {data_set: Counter(forgotten) for data_set, forgotten in self._forgotten.items()}
            for sample in self._by_row.values():
                counts.setdefault(sample.data_set, Counter())[sample.kind] += 1
        return dict(sorted(counts.items()))

    def report(self, *, limit: int = 20) -> str:
        """Return the text for the end of a command: counts by kind and data set, then each sample.

        Args:
            limit: Maximum number of samples to list; the number of all others is given.

        Returns:
            The text, or ``""`` when nothing was skipped.
        """
        samples, by_data_set, total = self.samples(), self._counts(), len(self)
        if not samples:
            return ""
        lines = [f"skipped {total} samples: {_list_counts(sum(by_data_set.values(), Counter()))}"]
        if len(by_data_set) > 1:
            lines += [f"  of {name}: {_list_counts(kinds)}" for name, kinds in by_data_set.items()]
        lines += [f"  {sample.sample_id}: {sample.reason}" for sample in samples[:limit]]
        if total > limit:
            lines.append(f"  and {total - limit} more")
        return "\n".join(lines)


def _list_counts(counts: Counter[str]) -> str:
    # Sorted, because the order of arrival depends on threads.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)
