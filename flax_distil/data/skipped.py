"""The record of samples left out of a run: one bad file is counted and listed, never fatal."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class SkippedSample:
    """One sample that was left out.

    Args:
        index: Its row in the data set.
        sample_id: Its stable name.
        kind: A few words to count by, such as ``"unreadable audio"``.
        reason: What exactly is wrong with this one.
    """

    index: int
    sample_id: str
    kind: str
    reason: str


class SkippedSamples:
    """Collects skipped samples from many threads; a sample met again is kept once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_row: dict[tuple[str, int], SkippedSample] = {}

    def __len__(self) -> int:
        return len(self._by_row)

    @classmethod
    def joined(cls, parts: Iterable[Iterable[SkippedSample]]) -> "SkippedSamples":
        """Return what several processes skipped."""
        joined = cls()
        for part in parts:
            for sample in part:
                joined.add(**asdict(sample))
        return joined

    def add(self, *, index: int, sample_id: str, kind: str, reason: str) -> None:
        """Record one sample; later records of the same row (the next epoch) are ignored."""
        sample = SkippedSample(index=index, sample_id=sample_id, kind=kind, reason=reason)
        with self._lock:
            self._by_row.setdefault((sample_id, index), sample)

    def samples(self) -> list[SkippedSample]:
        """Return what was skipped so far, in order of row number."""
        with self._lock:
            return sorted(self._by_row.values(), key=lambda sample: (sample.index, sample.sample_id))

    def counts(self) -> dict[str, int]:
        """Return the number of skipped samples of each kind, the most frequent first."""
        return dict(Counter(sample.kind for sample in self.samples()).most_common())

    def report(self, *, limit: int = 20) -> str:
        """Return lines to print at the end of a run: counts by kind, then each sample.

        Args:
            limit: At most this many samples are listed; the number left out is told.

        Returns:
            The text, or ``""`` when nothing was skipped.
        """
        samples = self.samples()
        if not samples:
            return ""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts().items())
        lines = [f"skipped {len(samples)} samples: {counts}"]
        lines += [f"  {sample.sample_id}: {sample.reason}" for sample in samples[:limit]]
        if len(samples) > limit:
            lines.append(f"  and {len(samples) - limit} more")
        return "\n".join(lines)
