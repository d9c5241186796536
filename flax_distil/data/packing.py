"""Neighbouring recordings of one speaker, joined up to the 30 s that the encoder always computes.

Rows are taken in order and never put back: a pack ends where the next row does not fit, or where
another speaker begins. So the only rows that a :class:`Packer` holds are those of the pack it is
filling, and a stream is resumed by reading on from the first of them.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flax_distil.audio import CHUNK_SECONDS
from flax_distil.core import InputError
from flax_distil.data.labels import LabelBuilder
from flax_distil.data.packed_audio import MAX_STEPS, STEPS_PER_SECOND
from flax_distil.data.rows import SpeechRow
from flax_distil.data.samples import SampleError, row_duration
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.speech_data import SpeechData

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Rows to be joined to one sample.

    Attributes:
        rows: At least one, in order.
        previous: What the same speaker said immediately before, text by text; empty where nothing
            was said before, or the speaker is unknown.
    """

    rows: tuple[SpeechRow, ...]
    previous: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of audio, as the rows tell it."""
        return sum(row.duration_seconds or 0.0 for row in self.rows)


@dataclass(kw_only=True)
class PackingReport:
    """How well packs are filled; as JSON by ``dataclasses.asdict``.

    Attributes:
        packs: Packs made.
        rows: Rows in them.
        seconds: Seconds of audio in them.
    """

    packs: int = 0
    rows: int = 0
    seconds: float = 0.0

    def add(self, pack: PackedRows) -> None:
        """Count one pack."""
        self.packs += 1
        self.rows += len(pack.rows)
        self.seconds += pack.seconds

    @property
    def fill(self) -> float:
        """Mean share of the 30 s that holds audio; NaN without packs."""
        return self.seconds / (CHUNK_SECONDS * self.packs) if self.packs else math.nan

    def summary(self) -> str:
        """Return one line for the log."""
        return f"joined {self.rows} recordings to {self.packs} samples, {self.fill:.1%} of 30 s filled"

    @classmethod
    def joined(cls, parts: Iterable["PackingReport"]) -> "PackingReport":
        """Return the sum of what several processes packed."""
        parts = list(parts)
        return cls(
            packs=sum(part.packs for part in parts),
            rows=sum(part.rows for part in parts),
            seconds=sum(part.seconds for part in parts),
        )


class Packer:
    """Joins rows one after the other.

    Args:
        name: Of the data set, for the log.
        has_speakers: Whether the data set tells speakers apart. If so, a pack is of one speaker, and a
            row whose speaker is missing stays alone. If not, neighbours are joined whoever speaks, and
            no pack has a previous text.
        labels: Bounds the tokens of a pack by its ``max_label_length``; None (no labels yet) does not.
        max_rows: Most rows of a pack; 1 joins nothing and only tells the previous text.

    Raises:
        InputError: if ``max_rows`` is not positive.
    """

    def __init__(
        self, *, name: str, has_speakers: bool, labels: LabelBuilder | None = None, max_rows: int = MAX_STEPS
    ):
        if max_rows < 1:
            raise InputError(f"max_rows must be at least 1, got {max_rows}")
        if not has_speakers:
            _tell_without_speakers(name)
        self._has_speakers = has_speakers
        self._labels = labels
        self._max_rows = max_rows
        self._held: list[SpeechRow] = []
        self._steps = self._tokens = 0
        # Who spoke last, and what: the previous text of the next pack.
        self._last_speaker: str | None = None
        self._last_texts: tuple[str, ...] = ()

    @property
    def pending(self) -> tuple[SpeechRow, ...]:
        """Rows that were pushed and not yet handed out, in order."""
        return tuple(self._held)

    def push(self, row: SpeechRow) -> list[PackedRows]:
        """Take the next row; return the pack that it ends, if any.

        Args:
            row: With its duration; see :func:`measured`.

        Raises:
            ValueError: if its duration is unknown.
        """
        if row.duration_seconds is None:
            raise ValueError(f"expected a row with its duration, {row.sample_id!r} has none: measure it")
        # One step more than its duration: columns are rounded, and resampling may add a sample.
        steps = math.ceil(row.duration_seconds * STEPS_PER_SECOND) + 1
        tokens = self._labels.part_length(row.label) if self._labels and row.label is not None else 0
        full = self._take() if self._held and not self._fits(row, steps, tokens) else []
        self._held.append(row)
        self._steps += steps
        self._tokens += tokens
        return full

    def flush(self) -> list[PackedRows]:
        """Return what is still held, if anything; the next row then begins anew, without previous text."""
        rest = self._take() if self._held else []
        self._last_speaker, self._last_texts = None, ()
        return rest

    def get_state(self) -> dict[str, Any]:
        """Return, as JSON takes it, what a new packer needs to go on.

        That packer must then be pushed the :attr:`pending` rows again.
        """
        return {"speaker": self._last_speaker, "texts": list(self._last_texts)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`get_state` was called; what is held now is dropped."""
        self._held, self._steps, self._tokens = [], 0, 0
        self._last_speaker, self._last_texts = state["speaker"], tuple(state["texts"])

    def _fits(self, row: SpeechRow, steps: int, tokens: int) -> bool:
        if self._has_speakers and (row.speaker is None or row.speaker != self._held[0].speaker):
            return False
        return (
            len(self._held) < self._max_rows
            and self._steps + steps <= MAX_STEPS
            and (self._labels is None or self._tokens + tokens <= self._labels.max_parts_length)
        )

    def _take(self) -> list[PackedRows]:
        rows = tuple(self._held)
        speaker = rows[0].speaker if self._has_speakers else None
        same = speaker is not None and speaker == self._last_speaker
        pack = PackedRows(rows=rows, previous=self._last_texts if same else ())
        self._last_speaker = speaker
        self._last_texts = tuple(row.label for row in rows if row.label) if speaker is not None else ()
        self._held, self._steps, self._tokens = [], 0, 0
        return [pack]


@functools.cache  # one line per data set, however many packers its shards need
def _tell_without_speakers(name: str) -> None:
    log.info(
        "data set %r has no column of speakers: neighbouring recordings are joined whoever speaks, "
        "and none is prompted with the text before it",
        name,
    )


def pack(rows: Iterable[SpeechRow], packer: Packer) -> Iterator[PackedRows]:
    """Yield the packs of rows with durations, to the last one."""
    for row in rows:
        yield from packer.push(row)
    yield from packer.flush()


def measured(row: SpeechRow) -> SpeechRow:
    """Return the row with its duration, read from its audio's header where no column tells it.

    Raises:
        SampleError: if there is no audio, or it cannot be read.
    """
    if row.duration_seconds is not None:
        return row
    return dataclasses.replace(row, duration_seconds=row_duration(row))


class PackedData:
    """The packs of a data set, by number; made by :func:`pack_rows`.

    Attributes:
        packs: Row numbers of each pack.
        report: How well they are filled.
    """

    def __init__(
        self,
        data: SpeechData,
        packs: Sequence[tuple[int, ...]],
        continues: Sequence[bool],
        report: PackingReport,
    ):
        """Args are those of :func:`pack_rows`'s result; ``continues`` tells packs with a previous text."""
        self.packs = packs
        self.report = report
        self._data = data
        self._without_audio = data.without_audio()
        self._continues = continues

    def __len__(self) -> int:
        return len(self.packs)

    def read(self, number: int) -> PackedRows:
        """Return one pack, its audio still encoded; from any thread."""
        before = self.packs[number - 1] if self._continues[number] else ()
        texts = (self._without_audio.row(index).label for index in before)
        return PackedRows(
            rows=tuple(self._data.row(index) for index in self.packs[number]),
            previous=tuple(text for text in texts if text),
        )


def pack_rows(
    data: SpeechData,
    *,
    labels: LabelBuilder | None = None,
    max_rows: int = MAX_STEPS,
    skipped: SkippedSamples | None = None,
) -> PackedData:
    """Plan the packs of a whole data set; only recordings of unknown duration are opened.

    Args:
        data: The rows, filtered.
        labels: As for :class:`Packer`.
        max_rows: As for :class:`Packer`.
        skipped: Where rows whose duration cannot be measured are recorded; they are in no pack.
    """
    packer = Packer(
        name=data.name, has_speakers=data.speaker_column is not None, labels=labels, max_rows=max_rows
    )
    packs, continues, report = [], [], PackingReport()
    for made in pack(_measured_rows(data, skipped), packer):
        packs.append(tuple(row.index for row in made.rows))
        continues.append(bool(made.previous))
        report.add(made)
    return PackedData(data, packs, continues, report)


def _measured_rows(data: SpeechData, skipped: SkippedSamples | None) -> Iterator[SpeechRow]:
    for row in data.rows_without_audio():
        try:
            if row.duration_seconds is None:
                seconds = row_duration(data.row(row.index))
                row = dataclasses.replace(row, duration_seconds=seconds)
        except SampleError as error:
            if skipped is not None:
                skipped.add(
                    data_set=data.name,
                    index=row.index,
                    sample_id=row.sample_id,
                    kind=error.kind,
                    reason=error.reason,
                )
            continue
        yield row
