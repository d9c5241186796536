"""Data sets as training uses them: filtered, joined to samples, each with its own language and task."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

from flax_distil.data.filters import RowFilter
from flax_distil.data.labels import LabelBuilder
from flax_distil.data.packing import PackedData, PackedRows, Packer, PackingReport, measured, pack
from flax_distil.data.rows import SpeechRow
from flax_distil.data.samples import SampleError
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.speech_data import SpeechData
from flax_distil.data.speech_stream import SpeechStream


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSource:
    """A table; its rows were filtered before.

    Attributes:
        data: The rows that stay.
        labels: Makes their labels.
        packs: How they are joined; None takes every row by itself.
        weight: Its share in a mixture; None where all are put one after the other.
    """

    data: SpeechData
    labels: LabelBuilder
    packs: PackedData | None = None
    weight: float | None = None

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
        return self.labels.uses_previous and self.data.speaker_column is not None

    def read(self, number: int, *, load_audio: bool = True) -> PackedRows:
        """Return the rows of one sample, their audio still encoded; from any thread."""
        if self.packs is not None:
            return self.packs.read(number)
        row = (self.data if load_audio else self.data.without_audio()).row(number)
        before = self.data.without_audio().row(number - 1) if number and self.gives_prompts else None
        return _alone(before, row)

    def fingerprint(self) -> str:
        """Return a digest of what the numbers of samples stand for."""
        packs = "" if self.packs is None else str(self.packs.packs)
        return _digest([*self.data.ids(), packs])


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSource:
    """A stream, whose rows are filtered and joined as they come.

    Attributes:
        stream: The rows.
        labels: Makes their labels.
        row_filter: Tells which stay; None keeps all.
        concatenate: Whether neighbours are joined.
        weight: Its share in a mixture; None is 1.
        packing: How well samples are filled, so far.
        skipped: Where rows are recorded whose duration cannot be told.
    """

    stream: SpeechStream
    labels: LabelBuilder
    row_filter: RowFilter | None = None
    concatenate: bool = False
    weight: float | None = None
    packing: PackingReport = dataclasses.field(default_factory=PackingReport)
    skipped: SkippedSamples = dataclasses.field(default_factory=SkippedSamples)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.stream.name

    @property
    def gives_prompts(self) -> bool:
        """Whether a sample may be prompted with the text before it."""
        return self.labels.uses_previous

    def samples(self, rows: list[SpeechRow]) -> list[PackedRows]:
        """Filter and join rows that follow each other."""
        kept = [row for row in rows if self.row_filter is None or self.row_filter.keeps(row)]
        if not self.concatenate:
            return [_alone(before, row) for before, row in zip([None, *kept], kept, strict=False)]
        has_speakers = any(row.speaker is not None for row in kept)
        packer = Packer(name=self.name, has_speakers=has_speakers, labels=self.labels)
        packs = list(pack(self._measured(kept), packer))
        for made in packs:
            self.packing.add(made)
        return packs

    def fingerprint(self) -> str:
        """Return a digest of what a position in the stream stands for."""
        settings = "" if self.row_filter is None else repr(self.row_filter.config)
        return _digest([*(shard.name for shard in self.stream.shards), settings, str(self.concatenate)])

    def _measured(self, rows: Iterable[SpeechRow]) -> Iterator[SpeechRow]:
        for row in rows:
            try:
                yield measured(row)
            except SampleError as error:
                self.skipped.reject(row, error, data_set=self.name)


TrainingSource = TableSource | StreamSource


def _alone(before: SpeechRow | None, row: SpeechRow) -> PackedRows:
    """Return one row as a sample, and what the same speaker said right before."""
    continues = before is not None and row.speaker is not None and before.speaker == row.speaker
    return PackedRows(rows=(row,), previous=(before.label,) if continues and before.label else ())


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()
