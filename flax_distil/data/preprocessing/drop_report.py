"""Count the rows and hours that filters dropped, by data set and reason."""

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

KEPT = "kept"


@dataclass(kw_only=True)
class _Count:
    rows: int = 0
    seconds: float = 0.0


class DropReport:
    """Counts kept and dropped rows; any thread may add to it.

    Rows are not remembered, so count each row only once, in the first pass over its data set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Data set, then reason ("kept" for none).
        self._counts: dict[str, dict[str, _Count]] = {}

    @classmethod
    def merge(cls, states: Iterable[dict[str, Any]]) -> "DropReport":
        """Return the sum of the counts of several processes, or of earlier parts of the training.

        Args:
            states: Results of :meth:`get_state`.
        """
        joined = cls()
        for state in states:
            for data_set, counts in state.items():
                for reason, count in counts.items():
                    joined._add(data_set, reason, **count)
        return joined

    def get_state(self) -> dict[str, Any]:
        """Return the counts in a form for JSON: rows and seconds by data set and reason (or ``kept``).

        ``kept`` comes first, then the most frequent reason.
        """
        with self._lock:
            return {
                data_set: {
                    reason: asdict(count)
                    for reason, count in sorted(
                        counts.items(), key=lambda item: (item[0] != KEPT, -item[1].rows, item[0])
                    )
                }
                for data_set, counts in self._counts.items()
            }

    def add(self, data_set: str, reason: str | None, seconds: float | None, *, rows: int = 1) -> None:
        """Count one row, or several rows with the same reason.

        Args:
            data_set: Short name of the data set.
            reason: Reason for dropping; None if the row was kept.
            seconds: Duration of the row, or the sum for several rows; None if it is unknown.
            rows: Number of rows.
        """
        self._add(data_set, reason or KEPT, rows=rows, seconds=seconds or 0.0)

    def table(self) -> str:
        """Return a table as text, with hours of audio where durations are known; ``""`` without rows."""
        lines: list[tuple[str, int, float]] = []
        for data_set, counts in self.get_state().items():
            parts = [(f"  {reason}", count["rows"], count["seconds"]) for reason, count in counts.items()]
            lines.append((data_set, sum(rows for _, rows, _ in parts), sum(part[2] for part in parts)))
            lines += parts
        if not lines:
            return ""
        width = max(len(name) for name, *_ in lines)
        table = [f"{'':<{width}}  {'rows':>11}  {'hours':>9}"]
        table += [f"{name:<{width}}  {rows:>11,}  {seconds / 3600:>9.2f}" for name, rows, seconds in lines]
        return "\n".join(table)

    def _add(self, data_set: str, reason: str, *, rows: int, seconds: float) -> None:
        with self._lock:
            count = self._counts.setdefault(data_set, {}).setdefault(reason, _Count())
            count.rows += rows
            count.seconds += seconds
