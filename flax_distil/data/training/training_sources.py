"""Data sets that are ready for training: filtered and packed, each with its own language and task."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import MALFORMED, SampleError
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.config import FilterConfig
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder, check_timestamps
from flax_distil.data.preprocessing.packing import (
    PackedData,
    PackedRows,
    Packer,
    pack,
    previous_of,
    rows_before,
    with_duration,
)
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.stream import IterableSpeechDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSource:
    """A table whose rows have been filtered.

    Attributes:
        data: The rows that the filters kept.
        labels: Builder of the labels of the rows.
        packs: The packs of rows; None makes every row a sample.
        weight: Share of the data set in a mixture; None where data sets are concatenated.
        longest_label: Tokens of the longest label without a previous text; None counts them when needed.
    """

    data: SpeechDataset
    labels: LabelBuilder
    packs: PackedData | None = None
    weight: float | None = None
    longest_label: int | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.data if self.packs is None else self.packs)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.data.name

    @property
    def gives_prompts(self) -> bool:
        """Whether a sample may be prompted with the text before it."""
        return self.labels.uses_previous and self.data.has_previous

    def read(self, number: int, *, load_audio: bool = True) -> PackedRows:
        """Return the rows of one sample with encoded audio; any thread may call this."""
        if self.packs is not None:
            return self.packs.read(number)
        row = (self.data if load_audio else self._texts).row(number)
        before = self._texts.row(number - 1) if number and self.gives_prompts else None
        return _alone(before, row, self.data.speaker_column is not None)

    @functools.cached_property
    def _texts(self) -> SpeechDataset:
        return self.data.without_audio()

    def fingerprint(self) -> str:
        """Return a digest that changes whenever the numbers of samples may mean other rows."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        packs = "" if self.packs is None else str(self.packs.packs)
        return _digest([*self.data.ids(), packs])


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSource:
    """A stream whose rows are filtered and packed while they are read.

    Attributes:
        stream: The rows.
        labels: Builder of the labels of the rows.
        filters: Configuration of the filters.
        normalize: Text normalizer of the language, for the WER.
        concatenate: Whether neighboring rows are packed.
        window_seconds: Longest sample that packing makes.
        weight: Share of the data set in a mixture; None is 1.

    Raises:
        InputError: If the data set lacks a column that a filter needs, or has no rows.
    """

    stream: IterableSpeechDataset
    labels: LabelBuilder
    filters: FilterConfig
    normalize: Callable[[str], str]
    concatenate: bool = False
    window_seconds: float = float(CHUNK_SECONDS)
    weight: float | None = None

    def __post_init__(self) -> None:
        _ = self._filter

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.stream.name

    @property
    def gives_prompts(self) -> bool:
        """Whether a sample may be prompted with the text before it."""
        return self.labels.uses_previous and self._first_rows.has_previous

    def samples(self, rows: list[Example], skipped: SkippedSamples) -> tuple[list[PackedRows], DropReport]:
        """Filter and pack consecutive rows.

        Args:
            rows: Rows with their audio.
            skipped: Records rows with impossible values, or whose duration cannot be determined.

        Returns:
            The samples, and what the filters dropped.
        """
        report, kept = DropReport(), []
        has_speakers = self._first_rows.speaker_column is not None
        for row in rows:
            reason = self._filter.drop_reason(row)
            report.add(self.name, reason, row.duration_seconds)
            if row.problem is not None:
                skipped.reject(row, SampleError(MALFORMED, row.problem), data_set=self.name)
            if reason is None:
                kept.append(row)
        if not self.concatenate:
            befores = [None, *kept]
            return [_alone(*pair, has_speakers) for pair in zip(befores, kept, strict=False)], report
        packer = Packer(
            name=self.name,
            has_speakers=has_speakers,
            labels=self.labels,
            window_seconds=self.window_seconds,
        )
        return list(pack(self._add_durations(kept, skipped), packer)), report

    def fingerprint(self) -> str:
        """Return a digest that changes whenever a position in the stream may mean another sample."""
        names = [shard.name for shard in self.stream.shards]
        packing = str(self.concatenate)
        if self.concatenate and self.window_seconds < CHUNK_SECONDS:
            packing += f" to {self.window_seconds:g}"
        return _digest([*names, repr(self.filters), packing])

    @functools.cached_property
    def _first_rows(self) -> SpeechDataset:
        return self.stream.first_rows()

    @functools.cached_property
    def _filter(self) -> RowFilter:
        return RowFilter(self._first_rows, self.filters, normalize=self.normalize, labels=self.labels)

    def _add_durations(self, rows: Iterable[Example], skipped: SkippedSamples) -> Iterator[Example]:
        for row in rows:
            try:
                known = with_duration(row)
                check_timestamps(row.label or "", known.duration_seconds)
            except SampleError as error:
                skipped.reject(row, error, data_set=self.name)
                continue
            yield known


TrainingSource = TableSource | StreamSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training data sets, ready for a pipeline.

    Attributes:
        sources: One source per data set.
        dropped: Counts of the rows of tables that filters dropped; streams are filtered while they are read.
        skipped: Rows that cannot be used; pipelines add to it.
        noise: Recordings of noise; None if there are none.
        kl_weights: Factor of the KL term for each data set; None where it is 1 for all.
    """

    sources: Sequence[TrainingSource]
    dropped: DropReport = dataclasses.field(default_factory=DropReport)
    skipped: SkippedSamples = dataclasses.field(default_factory=SkippedSamples)
    noise: SpeechDataset | None = None
    kl_weights: Sequence[float] | None = None

    @property
    def sizes(self) -> list[int | None]:
        """Number of samples of each data set; None for a stream, where it is not known before it is read."""
        return [len(source) if isinstance(source, TableSource) else None for source in self.sources]

    @property
    def samples(self) -> int | None:
        """Number of samples of all data sets; None if one of them is a stream."""
        return None if None in self.sizes else sum(size or 0 for size in self.sizes)

    @property
    def hours(self) -> float | None:
        """Hours of all data sets; None for streams, and where a duration is known only from the audio."""
        seconds = 0.0
        for source in self.sources:
            durations = source.data.durations() if isinstance(source, TableSource) else [None]
            if None in durations:
                return None
            seconds += sum(filter(None, durations))
        return seconds / 3600

    @property
    def is_concatenated(self) -> bool:
        """Whether an epoch has every sample of every data set once; otherwise they are mixed by weight."""
        return all(self.sizes) and all(source.weight is None for source in self.sources)


def _alone(before: Example | None, row: Example, has_speakers: bool) -> PackedRows:
    """Return one row as a sample, with the text of the same speaker right before it."""
    earlier = rows_before(row, [] if before is None else [before], has_speakers=has_speakers)
    return PackedRows(rows=(row,), previous=previous_of(row, earlier))


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()
