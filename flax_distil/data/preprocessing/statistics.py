"""Statistics of a training set before a run: hours, speakers, lengths, dropped rows and formats."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.audio.reading.decoding import audio_encoding
from flax_distil.data.decoded_example import DurationLimits, SampleError, row_audio, sample_errors
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.drop_report import KEPT, DropReport
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.preprocessing.packing import with_duration
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingSource

SPEAKERS_LISTED = 100
"""Maximum number of speakers whose hours a report lists."""

HEADERS_READ = 500
"""Maximum number of recordings of a table whose headers are read to find their encoding."""


@dataclass(kw_only=True)
class DatasetStatistics:
    """Statistics of one data set, as training uses it.

    Attributes:
        name: Name of the data set.
        row_seconds: Seconds of each row that is kept and can be used, according to its header.
        sample_seconds: Seconds of each sample, which consists of several rows where they are joined.
        label_lengths: Number of tokens of the label of each sample, as ``max_label_length`` counts them.
        speaker_seconds: Seconds of each speaker by name; empty if no column identifies speakers.
        encodings: Encodings of the recordings that were opened, with their counts.
        complete: Whether all rows were read.
    """

    name: str
    row_seconds: list[float] = field(default_factory=list)
    sample_seconds: list[float] = field(default_factory=list)
    label_lengths: list[int] = field(default_factory=list)
    speaker_seconds: dict[str, float] = field(default_factory=dict)
    encodings: Counter[str] = field(default_factory=Counter)
    complete: bool = True

    @property
    def hours(self) -> float:
        """Hours of audio that training uses."""
        return sum(self.row_seconds) / 3600

    @property
    def fill(self) -> float:
        """Mean share of 30 s that is audio; NaN without samples."""
        count = len(self.sample_seconds)
        return sum(self.sample_seconds) / (CHUNK_SECONDS * count) if count else math.nan

    def add(self, rows: Sequence[Example], labels: LabelBuilder) -> None:
        """Count one sample, given by its rows with their durations."""
        seconds = [row.duration_seconds or 0.0 for row in rows]
        self.row_seconds += seconds
        self.sample_seconds.append(sum(seconds))
        self.label_lengths.append(_label_length(rows, labels))
        for row, length in zip(rows, seconds, strict=True):
            if row.speaker is not None:
                self.speaker_seconds[row.speaker] = self.speaker_seconds.get(row.speaker, 0.0) + length

    def speakers(self, most: int) -> list[tuple[str, float]]:
        """Return the speakers with the most audio, and their hours."""
        ordered = sorted(self.speaker_seconds.items(), key=lambda item: -item[1])
        return [(name, seconds / 3600) for name, seconds in ordered[:most]]

    def figures(self, dropped: DropReport) -> dict[str, Any]:
        """Return the counts in a form for JSON.

        Args:
            dropped: Counts of the rows that the filters dropped.
        """
        judged = dropped.get_state().get(self.name, {})
        return {
            "rows": sum(count["rows"] for count in judged.values()),
            "rows_kept": len(self.row_seconds),
            "hours": self.hours,
            "speakers": len(self.speaker_seconds) or None,
            "samples": len(self.sample_seconds),
            "fill": None if math.isnan(self.fill) else self.fill,
            "row_seconds": percentiles(self.row_seconds),
            "sample_seconds": percentiles(self.sample_seconds),
            "label_lengths": percentiles(self.label_lengths),
            "hours_by_speaker": dict(self.speakers(SPEAKERS_LISTED)),
            "encodings": dict(self.encodings.most_common()),
            "dropped": {
                reason: {"rows": count["rows"], "hours": count["seconds"] / 3600}
                for reason, count in judged.items()
                if reason != KEPT
            },
            "complete": self.complete,
        }


def percentiles(values: Sequence[float] | Sequence[int]) -> dict[str, float] | None:
    """Return minimum, median, mean, 95th percentile and maximum; None without values."""
    if not values:
        return None
    array = np.asarray(values, np.float64)
    low, middle, high, top = np.percentile(array, [0, 50, 95, 100]).tolist()
    return {"min": low, "median": middle, "mean": float(array.mean()), "95%": high, "max": top}


def compute_statistics(
    source: TrainingSource,
    *,
    limits: DurationLimits,
    skipped: SkippedSamples,
    window: int,
    max_rows: int,
) -> tuple[DatasetStatistics, DropReport]:
    """Compute the statistics of a data set, opening only recordings of unknown duration and a few others.

    Args:
        source: The data set; all rows of a table are counted.
        limits: Limits of the duration of recordings.
        skipped: Collector of rows that cannot be used.
        window: Number of rows of a stream that are joined together.
        max_rows: Maximum number of rows that are read of a stream.

    Returns:
        The statistics, and what the filters dropped of a stream; tables were filtered before.
    """
    if isinstance(source, StreamSource):
        return _count_stream(source, limits, skipped, window=window, max_rows=max_rows)
    return _count_table(source, limits, skipped), DropReport()


def _count_table(source: TableSource, limits: DurationLimits, skipped: SkippedSamples) -> DatasetStatistics:
    statistics, data = DatasetStatistics(name=source.name), source.data
    for index in np.unique(np.linspace(0, len(data) - 1, min(HEADERS_READ, len(data))).astype(int)):
        _count_encoding(statistics, data.row(int(index)))

    def measure(row: Example) -> Example | None:
        if row.duration_seconds is None:
            return _usable_row(data.row(row.index), statistics.name, limits, skipped)
        return _usable_row(row, statistics.name, limits, skipped)

    rows = [measure(row) for row in data.rows_without_audio()]
    packs = [(number,) for number in range(len(rows))] if source.packs is None else source.packs.packs
    for numbers in packs:
        if used := [row for number in numbers if (row := rows[number]) is not None]:
            statistics.add(used, source.labels)
    return statistics


def _count_stream(
    source: StreamSource, limits: DurationLimits, skipped: SkippedSamples, *, window: int, max_rows: int
) -> tuple[DatasetStatistics, DropReport]:
    statistics, reports = DatasetStatistics(name=source.name), []
    for rows in _windows(source, window, max_rows, statistics):
        for row in rows:
            _count_encoding(statistics, row)
        samples, dropped = source.samples(rows, skipped)
        reports.append(dropped.get_state())
        for sample in samples:
            checked = (_usable_row(row, statistics.name, limits, skipped) for row in sample.rows)
            if used := [row for row in checked if row is not None]:
                statistics.add(used, source.labels)
    return statistics, DropReport.merge(reports)


def _windows(
    source: StreamSource, window: int, max_rows: int, statistics: DatasetStatistics
) -> Iterator[list[Example]]:
    """Yield the rows of a stream in windows, and note in the statistics whether rows remain."""
    rows: list[Example] = []
    left = max_rows
    for shard in range(len(source.stream.shards)):
        for data, _ in source.stream.blocks(shard):
            for index in range(len(data)):
                if not left:
                    statistics.complete = False
                    if rows:
                        yield rows
                    return
                rows.append(data.row(index))
                left -= 1
                if len(rows) == window:
                    yield rows
                    rows = []
    if rows:
        yield rows


def _usable_row(row: Example, name: str, limits: DurationLimits, skipped: SkippedSamples) -> Example | None:
    """Return the row with its duration and without its audio; None, and recorded, if it cannot be used."""
    try:
        row = with_duration(row)
        limits.check(row.duration_seconds or 0.0)
    except SampleError as error:
        skipped.reject(row, error, data_set=name)
        return None
    return dataclasses.replace(row, audio=None)


def _count_encoding(statistics: DatasetStatistics, row: Example) -> None:
    try:
        audio = row_audio(row)
        with sample_errors():
            statistics.encodings[audio_encoding(audio.source, format=audio.format)] += 1
    except SampleError as error:
        statistics.encodings[error.kind] += 1


def _label_length(rows: Sequence[Example], labels: LabelBuilder) -> int:
    if len(rows) == 1:
        return labels.length(rows[0].label or "")
    opening = labels.max_label_length - labels.max_parts_length
    return opening + sum(labels.part_length(row.label or "") for row in rows)


def merge_statistics(parts: Sequence[DatasetStatistics]) -> DatasetStatistics:
    """Return the statistics of several data sets together."""
    total = DatasetStatistics(name="all")
    for statistics in parts:
        total.row_seconds += statistics.row_seconds
        total.sample_seconds += statistics.sample_seconds
        total.label_lengths += statistics.label_lengths
        for speaker, seconds in statistics.speaker_seconds.items():
            total.speaker_seconds[speaker] = total.speaker_seconds.get(speaker, 0.0) + seconds
        total.encodings.update(statistics.encodings)
        total.complete &= statistics.complete
    return total
