"""Recordings of any length through one checkpoint: each is sent the way that its length asks for."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from flax_distil.audio import CHUNK_SAMPLES, CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core import InputError
from flax_distil.parallel import Runner
from flax_distil.transcription import (
    ModeName,
    RecordingTranscriber,
    Transcript,
    TranscriptionOptions,
    long_form_defaults,
    make_transcriber,
)
from flax_distil.transcription.chunk_cutting import chunk_samples, cut_chunks
from flax_distil.workflows.audio_inputs import ReadRecording
from flax_distil.workflows.transcription_model import TranscriptionModel

RouteName = Literal["auto", "short", "chunked", "sequential"]

PATIENCE = 4
"""Batches' worth of recordings after which one that waits for the other way of transcribing has its turn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a recording.

    Attributes:
        name: what it is called.
        seconds: its length; 0 if it could not be read.
        transcript: None if there is an error.
        error: one sentence; None if there is a transcript.
    """

    name: Any
    seconds: float
    transcript: Transcript | None = None
    error: InputError | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """How recordings are transcribed.

    Attributes:
        mode: "short", "chunked" or "sequential"; "auto" is chunked where ``chunk_length_s`` is given,
            otherwise short up to 30 s and sequential beyond.
        batch_size: windows decoded at once; rounded up to what the devices of this process divide.
        chunk_length_s: seconds of a chunk.
        stride_length_s: seconds that chunks share on each side, or on the left and on the right.
        keep_temperature: sequential: temperature 0 was asked for, and is not followed by others.

    Raises:
        InputError: if a value is unknown or out of range.
    """

    mode: str = "auto"
    batch_size: int = 16
    chunk_length_s: float | None = None
    stride_length_s: float | tuple[float, float] | None = None
    keep_temperature: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(RouteName):
            raise InputError(
                f"mode {self.mode!r} is unknown: expected one of {', '.join(get_args(RouteName))}"
            )
        if self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size} is below 1")
        cuts = [name for name in ("chunk_length_s", "stride_length_s") if getattr(self, name) is not None]
        if cuts and self.mode not in ("auto", "chunked"):
            raise InputError(f"{cuts[0]} is given, but mode {self.mode} cuts no chunks: leave it out")
        if cuts == ["stride_length_s"] and self.mode == "auto":
            raise InputError("stride_length_s is given without chunk_length_s: give both, or mode chunked")
        chunk_samples(self.chunk_length_s, self.stride_length_s)

    @property
    def modes(self) -> tuple[ModeName, ...]:
        """The ways that recordings may be sent."""
        if self.mode == "auto":
            return ("short", "sequential") if self.chunk_length_s is None else ("chunked",)
        return (self.mode,)  # type: ignore[return-value]  # one of the others, see above

    def check(self, options: TranscriptionOptions) -> None:
        """Raise ``InputError`` if something is asked for that none of these ways does."""
        if "sequential" in self.modes:
            return
        for name in ("vad", "condition_on_prev_tokens"):
            if getattr(options, name):
                way = "cuts chunks" if "chunked" in self.modes else f"is {self.mode}"
                raise InputError(f"{name} is for mode sequential, and this one {way}: leave {name} out")

    def mode_of(self, samples: int) -> ModeName:
        """Return how a recording of so many samples is transcribed."""
        return self.modes[-1] if samples > CHUNK_SAMPLES else self.modes[0]


class RecordingStream:
    """Transcribes recordings of any length.

    Programs are compiled once per size of batch: powers of two times the devices, up to ``batch_size``.

    Attributes:
        route: how recordings are transcribed.
        batch_size: rows of a full batch.
    """

    def __init__(
        self, model: TranscriptionModel, runner: Runner, options: TranscriptionOptions, route: Route
    ):
        """Bind a checkpoint; its weights are read when they are first needed.

        Args:
            model: the checkpoint.
            runner: over the devices it is on.
            options: what to transcribe into, and how.
            route: the rest.
        """
        self.route = route
        self._model, self._options = model, options
        self._shards = runner.local_batch_shards
        self.batch_size = -(-route.batch_size // self._shards) * self._shards

    def warm_up(self) -> float:
        """Compile what full batches need and return the seconds it took."""
        return sum(self.transcriber(mode, self.batch_size).warm_up() for mode in self.route.modes)

    def transcribe(self, recordings: Iterable[ReadRecording]) -> Iterator[Outcome]:
        """Yield what becomes of each recording as it is known; their order may change.

        Recordings are taken as there is room for them: a batch of each kind waits at most.
        """
        return _Turns(self, iter(recordings)).run()

    def refusal(self, recording: ReadRecording) -> InputError | None:
        """Return why a recording cannot be transcribed, None if it can."""
        samples = len(recording.samples)
        if recording.error is None and self.route.mode_of(samples) == "short" and samples > CHUNK_SAMPLES:
            return InputError(
                f"recording {recording.name!r} lasts {samples / SAMPLING_RATE:.1f} s, and mode short takes "
                f"at most {CHUNK_SECONDS} s: use mode sequential or chunked"
            )
        return recording.error

    def rows(self, recording: ReadRecording) -> int:
        """Return how many rows of a batch a recording can fill."""
        if self.route.mode_of(len(recording.samples)) != "chunked":
            return 1
        return len(
            cut_chunks(
                len(recording.samples), *chunk_samples(self.route.chunk_length_s, self.route.stride_length_s)
            )
        )

    def transcriber(self, mode: ModeName, rows: int) -> RecordingTranscriber:
        """Return what transcribes in one way, so many windows at once; it compiles nothing that is there."""
        options = self._options
        if mode == "sequential":
            options = long_form_defaults(options, keep_temperature=self.route.keep_temperature)
        return make_transcriber(
            mode,
            self._model.decoder(options),
            batch_size=self._bucket(rows),
            chunk_length_s=self.route.chunk_length_s,
            stride_length_s=self.route.stride_length_s,
        )

    def _bucket(self, rows: int) -> int:
        """Return the size of batch for so many rows."""
        size = self._shards
        while size < rows:
            size *= 2
        return min(size, self.batch_size)


class _Turns:
    """Recordings on their way to two transcribers, of which one works at a time.

    The one at work takes recordings from the source; those it meets for the other wait, until they
    fill a batch or have waited long. Then it is their turn.
    """

    def __init__(self, stream: RecordingStream, source: Iterator[ReadRecording]):
        self._stream, self._source = stream, source
        self._waiting: dict[ModeName, collections.deque[tuple[int, ReadRecording]]] = {
            mode: collections.deque() for mode in stream.route.modes
        }
        self._failed: collections.deque[Outcome] = collections.deque()
        self._taken = 0
        self._ended = False

    def run(self) -> Iterator[Outcome]:
        rows = self._first_rows()
        while True:
            yield from self._failures()
            mode = self._longest_waiting()
            if mode is None:
                if self._ended:
                    return
                self._take()
                continue
            for (name, seconds), transcript in self._stream.transcriber(
                mode, rows[mode]
            ).transcribe_recordings(self._turn(mode)):
                yield Outcome(name=name, seconds=seconds, transcript=transcript)
                yield from self._failures()

    def _first_rows(self) -> dict[ModeName, int]:
        """Take recordings until they fill a batch, and return how many rows each way can use."""
        rows: dict[ModeName, int] = dict.fromkeys(self._waiting, 0)
        while not self._ended:
            taken = self._take()
            if taken is None:
                continue
            mode, recording = taken
            rows[mode] += self._stream.rows(recording)
            if rows[mode] >= self._stream.batch_size:
                return dict.fromkeys(rows, self._stream.batch_size)
        return rows

    def _take(self) -> tuple[ModeName, ReadRecording] | None:
        """Let the next recording wait for its turn; return it unless it failed."""
        recording = next(self._source, None)
        if recording is None:
            self._ended = True
            return None
        error = self._stream.refusal(recording)
        if error is not None:
            self._failed.append(Outcome(name=recording.name, seconds=0.0, error=error))
            return None
        mode = self._stream.route.mode_of(len(recording.samples))
        self._waiting[mode].append((self._taken, recording))
        self._taken += 1
        return mode, recording

    def _turn(self, mode: ModeName) -> Iterator[tuple[tuple[Any, float], Any]]:
        """Give recordings to one way of transcribing until it is the other's turn."""
        own = self._waiting[mode]
        others = [queue for other, queue in self._waiting.items() if other != mode]
        while own or not self._ended:
            if own:
                _, recording = own.popleft()
                yield (recording.name, len(recording.samples) / SAMPLING_RATE), recording.samples
            elif any(map(self._overdue, others)):
                return
            else:
                self._take()

    def _overdue(self, queue: "collections.deque[tuple[int, ReadRecording]]") -> bool:
        size = self._stream.batch_size
        return len(queue) >= size or (bool(queue) and self._taken - queue[0][0] >= PATIENCE * size)

    def _longest_waiting(self) -> ModeName | None:
        waiting = [(queue[0][0], mode) for mode, queue in self._waiting.items() if queue]
        return min(waiting)[1] if waiting else None

    def _failures(self) -> Iterator[Outcome]:
        while self._failed:
            yield self._failed.popleft()
