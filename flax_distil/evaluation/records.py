"""What is known of recordings that were transcribed, a line each; figures are made from these alone."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from flax_distil.data.decoded_example import DecodedExample
from flax_distil.data.skipped import SkippedSample, SkippedSamples
from flax_distil.metrics.throughput import Throughput
from flax_distil.transcription.results import Transcript


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """One process at work on a model, data set and condition, from one start of the command to its end.

    Attributes:
        number: Counts the starts, from 1.
        process: Number of the process.
        devices: That it computed on, as ``4 x TPU v4``.
        batch_size: Windows decoded at once.
        compile_seconds: Spent compiling before the clock of ``Prediction.seconds`` began.
    """

    number: int
    process: int
    devices: str
    batch_size: int
    compile_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One recording, transcribed.

    Attributes:
        index: Row of the data set.
        id: Its stable name.
        reference: Whole reference text, "" where there is none.
        duration: Its seconds.
        text: Transcript.
        language: Code, given or detected.
        tokens: Ids generated.
        avg_logprob: Average log-probability of a token.
        no_speech_prob: Probability that nothing is spoken.
        session: Number of the session.
        process: Which process it was.
        seconds: Since that session began, compilation left out.
        statistics: Of speculative decoding, since that session began; None without an assistant.
        batch_seconds: Its equal share of the seconds from samples in memory to the texts of its batch; None
            where batches are not timed one by one.
    """

    index: int
    id: str
    reference: str
    duration: float
    text: str
    language: str
    tokens: int
    avg_logprob: float
    no_speech_prob: float
    session: int
    process: int
    seconds: float
    statistics: dict[str, int] | None = None
    batch_seconds: float | None = None

    @classmethod
    def of(
        cls,
        sample: DecodedExample,
        transcript: Transcript,
        session: Session,
        *,
        seconds: float,
        batch_seconds: float | None = None,
        statistics: dict[str, int] | None = None,
    ) -> "Prediction":
        """Return the record of a recording and its transcript; arguments as the attributes."""
        return cls(
            index=sample.index,
            id=sample.sample_id,
            reference=sample.reference or "",
            duration=sample.duration_seconds,
            text=transcript.text,
            language=transcript.language,
            tokens=len(transcript.tokens),
            avg_logprob=transcript.avg_logprob,
            no_speech_prob=transcript.no_speech_prob,
            session=session.number,
            process=session.process,
            seconds=seconds,
            statistics=statistics,
            batch_seconds=batch_seconds,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencySample:
    """A recording transcribed alone.

    Attributes:
        id: Its stable name.
        duration: Its seconds.
        seconds: It took.
        encoder_seconds: Of which log-mel and encoder took so many.
        tokens: Ids generated.
        devices: That were computed on.
    """

    id: str
    duration: float
    seconds: float
    encoder_seconds: float
    tokens: int
    devices: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamPosition:
    """A place in a data set that is read from front to back.

    Attributes:
        row: Number of rows before it.
        cursor: Of the block of rows that it is in; None for the beginning.
        skipped: Number of rows of that block before it.
        is_end: Whether no row follows.
    """

    row: int
    cursor: list[int] | None = None
    skipped: int = 0
    is_end: bool = False


Record = Session | Prediction | SkippedSample | LatencySample | StreamPosition
L = TypeVar("L", bound=Record)

_KINDS: dict[str, type[Record]] = {
    "session": Session,
    "prediction": Prediction,
    "skipped": SkippedSample,
    "latency": LatencySample,
    "position": StreamPosition,
}


@dataclasses.dataclass(frozen=True)
class Records:
    """What is known of one model on one data set under one condition."""

    lines: Sequence[Record]

    def first(self, rows: int) -> "Records":
        """Return what is known of the first rows: an earlier run may have transcribed more."""
        return Records([line for line in self.lines if getattr(line, "index", 0) < rows])

    @functools.cached_property
    def predictions(self) -> list[Prediction]:
        """In order of rows; of a row that was transcribed again the last one."""
        found: dict[int, Prediction] = {}
        for line in self._of(Prediction):
            if line.index not in found or line.session >= found[line.index].session:
                found[line.index] = line
        return [found[index] for index in sorted(found)]

    @property
    def skipped(self) -> SkippedSamples:
        """Rows without a transcript, and why."""
        skipped = SkippedSamples()
        for sample in self._of(SkippedSample):
            skipped.add(**vars(sample))
        return skipped

    @property
    def latency(self) -> list[LatencySample]:
        """Recordings transcribed alone."""
        return self._of(LatencySample)

    @property
    def sessions(self) -> list[Session]:
        """Who transcribed, in order."""
        return sorted(self._of(Session), key=lambda session: (session.number, session.process))

    @property
    def positions(self) -> list[StreamPosition]:
        """Where parts of the stream begin, and its end once it was read to there."""
        return self._of(StreamPosition)

    @property
    def stream_rows(self) -> int | None:
        """Number of rows of that stream; None if it was never read to its end."""
        return next((position.row for position in self.positions if position.is_end), None)

    @property
    def done(self) -> set[int]:
        """Rows that need no more work; none while no recording could be transcribed."""
        transcribed = {line.index for line in self.predictions}
        return transcribed | {line.index for line in self._of(SkippedSample)} if transcribed else set()

    def throughput(self) -> Throughput:
        """Return all sessions together; processes of one worked at the same time."""
        predictions = self.predictions
        latest: dict[int, float] = {}
        for line in predictions:
            latest[line.session] = max(latest.get(line.session, 0.0), line.seconds)
        compiling: dict[int, float] = {}
        for session in self.sessions:
            compiling[session.number] = max(compiling.get(session.number, 0.0), session.compile_seconds)
        return Throughput(
            audio_seconds=sum(line.duration for line in predictions),
            compute_seconds=sum(latest.values()),
            compile_seconds=sum(compiling.values()),
            tokens=sum(line.tokens for line in predictions),
            samples=len(predictions),
        )

    def statistics(self) -> Counter[str]:
        """Return the sums that speculative decoding counted in all sessions; none without an assistant."""
        last: dict[tuple[int, int], Prediction] = {}
        for line in self.predictions:
            place = line.session, line.process
            if place not in last or line.seconds >= last[place].seconds:
                last[place] = line
        return sum((Counter(line.statistics or {}) for line in last.values()), Counter())

    def _of(self, kind: type[L]) -> list[L]:
        return [line for line in self.lines if isinstance(line, kind)]


def encode_record(record: Record) -> str:
    """Return a record as a line of JSON."""
    name = next(name for name, kind in _KINDS.items() if isinstance(record, kind))
    return json.dumps({name: dataclasses.asdict(record)}, ensure_ascii=False)


def decode_record(line: str) -> Record:
    """Return the record in a line of :func:`encode_record`."""
    ((kind, values),) = json.loads(line).items()
    return _KINDS[kind](**values)
