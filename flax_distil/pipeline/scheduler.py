"""Recordings of any length through one checkpoint."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.inputs.audio_inputs import ReadRecording
from flax_distil.pipeline.inputs.channel_split import ChannelName, join_outcomes, plain_name, split_recordings
from flax_distil.pipeline.outcomes import Outcome
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.chunked.chunking import chunk_samples
from flax_distil.transcription.modes import MergingName, ModeName, make_transcriber
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.recordings import OnSegment, RecordingTranscriber
from flax_distil.transcription.results import TranscribedSegment, without_text
from flax_distil.transcription.sequential.transcriber import long_form_defaults

RouteName = Literal["auto", "short", "chunked", "sequential"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """How recordings are transcribed.

    Attributes:
        mode: "sequential", "chunked", or "short" (one window of at most 30 s); "auto" is chunked where
            ``chunk_length_s`` is given, otherwise sequential, whatever the length of a recording.
        batch_size: windows decoded at once at most; rounded up to what the devices of this process divide.
            With 1 a recording is answered before the next one is taken.
        chunk_length_s: seconds of a chunk.
        stride_length_s: seconds that chunks share on each side, or on the left and on the right.
        chunk_merging: "timestamps": chunks are decoded with timestamps, to their ends, and merged by them; or
            "longest_common_sequence": as transformers merges them, a window each.
        keep_temperature: temperature 0 was asked for, and is not followed by others.

    Raises:
        InputError: if a value is unknown or out of range.
    """

    mode: str = "auto"
    batch_size: int = 16
    chunk_length_s: float | None = None
    stride_length_s: float | tuple[float, float] | None = None
    chunk_merging: str = "timestamps"
    keep_temperature: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(RouteName):
            raise InputError(
                f"mode {self.mode!r} is unknown: expected one of {', '.join(get_args(RouteName))}"
            )
        if self.chunk_merging not in get_args(MergingName):
            raise InputError(
                f"chunk_merging {self.chunk_merging!r} is unknown: expected one of "
                f"{', '.join(get_args(MergingName))}"
            )
        if self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size} is below 1")
        cuts = [name for name in ("chunk_length_s", "stride_length_s") if getattr(self, name) is not None]
        if cuts and self.mode not in ("auto", "chunked"):
            raise InputError(f"{cuts[0]} is given, but mode {self.mode} cuts no chunks: leave it out")
        if cuts == ["stride_length_s"] and self.mode == "auto":
            raise InputError("stride_length_s is given without chunk_length_s: give both, or mode chunked")
        if self.chunk_merging != "timestamps" and self.way != "chunked":
            raise InputError(
                f"chunk_merging {self.chunk_merging} is given, but no chunks are cut: add chunk_length_s, or "
                "leave it out"
            )
        chunk_samples(self.chunk_length_s, self.stride_length_s)

    @property
    def way(self) -> ModeName:
        """How recordings become windows."""
        if self.mode == "auto":
            return "sequential" if self.chunk_length_s is None else "chunked"
        return self.mode  # type: ignore[return-value]  # one of the others, see above

    @property
    def is_window_after_window(self) -> bool:
        """Whether decoding goes on behind the last timestamp of a window, with thresholds and fallback."""
        return self.way != "short" and self.chunk_merging == "timestamps"

    def options(self, options: TranscriptionOptions) -> TranscriptionOptions:
        """Return options with what this way needs: timestamps, and the usual thresholds and temperatures."""
        if not self.is_window_after_window:
            return options
        return long_form_defaults(options, keep_temperature=self.keep_temperature)

    def check(self, options: TranscriptionOptions) -> None:
        """Raise ``InputError`` if something is asked for that this way does not do."""
        takes = {
            "vad": self.is_window_after_window,
            "condition_on_prev_tokens": self.way == "sequential",
            "clip_timestamps": self.way == "sequential",
            "hallucination_silence_threshold": self.is_window_after_window,
            "multilingual": self.is_window_after_window or self.way == "short",
        }
        for name, taken in takes.items():
            if getattr(options, name) not in (None, False, ()) and not taken:
                how = "cuts chunks" if self.way == "chunked" else f"is {self.way}"
                raise InputError(f"{name} is for mode sequential, and this one {how}: leave {name} out")


class RecordingStream:
    """Transcribes recordings of any length.

    Programs are compiled once per size of batch: powers of two times the devices, up to ``batch_size``.

    Attributes:
        route: how recordings are transcribed.
        batch_size: rows of a full batch.
    """

    def __init__(
        self, model: TranscriptionModel, partitioner: Partitioner, options: TranscriptionOptions, route: Route
    ):
        """Bind a checkpoint; its weights are read when they are first needed.

        Args:
            model: the checkpoint.
            partitioner: over the devices it is on.
            options: what to transcribe into, and how.
            route: the rest.
        """
        self.route = route
        self._model, self._options = model, options
        shards = partitioner.local_batch_shards
        self.batch_size = -(-route.batch_size // shards) * shards

    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""
        return self._transcriber().warm_up()

    def transcribe(
        self, recordings: Iterable[ReadRecording | None], *, on_segment: OnSegment | None = None
    ) -> Iterator[Outcome]:
        """Yield what becomes of each recording as it is known; their order may change.

        Recordings are taken as there is room for them; with a ``batch_size`` of 1 each is answered before the
        next one is taken.

        Args:
            recordings: as they were read; None where the next one is not there yet, see
                ``RecordingTranscriber``.
            on_segment: called with the name of a recording and a segment of it that no later window can
                change, while the recording is still being transcribed.
        """
        transcriber = self._transcriber()
        if self.route.batch_size > 1:
            apart = split_recordings(recordings)
            yield from join_outcomes(self._transcribe(transcriber, apart, on_segment))
            return
        for recording in recordings:
            if recording is not None:
                channels = (
                    self._transcribe(transcriber, [channel], on_segment)
                    for channel in split_recordings([recording])
                )
                yield from join_outcomes(itertools.chain.from_iterable(channels))

    def _transcribe(
        self,
        transcriber: RecordingTranscriber,
        recordings: Iterable[ReadRecording | None],
        on_segment: OnSegment | None,
    ) -> Iterator[Outcome]:
        def tell(recording: _Named, segment: TranscribedSegment) -> None:
            if on_segment is None or recording.error is not None or not recording.seconds:
                return
            if isinstance(recording.name, ChannelName):
                name, channel, _ = recording.name
                on_segment(name, dataclasses.replace(segment, channel=channel))
            else:
                on_segment(recording.name, segment)

        given = map(self._given, recordings)
        for recording, transcript in transcriber.transcribe_recordings(
            given, on_segment=None if on_segment is None else tell
        ):
            if recording.error is not None:
                yield Outcome(name=recording.name, seconds=0.0, error=recording.error)
            else:
                heard = transcript if recording.seconds else without_text(transcript)
                yield Outcome(name=recording.name, seconds=recording.seconds, transcript=heard)

    def _given(self, recording: ReadRecording | None) -> "tuple[_Named, Float[np.ndarray, ' W']] | None":
        """Return a recording as transcribers take it: without samples if it is only to be refused."""
        if recording is None:
            return None
        seconds, error = len(recording.samples) / SAMPLING_RATE, recording.error
        longest = self._model.window_seconds
        if error is None and self.route.way == "short" and seconds > longest:
            error = InputError(
                f"recording {plain_name(recording.name)!r} lasts {seconds:.1f} s, and mode short takes "
                f"at most {longest:g} s: use mode sequential or chunked"
            )
        samples_W = recording.samples if error is None else recording.samples[:0]
        return _Named(recording.name, seconds, error), samples_W

    def _transcriber(self) -> RecordingTranscriber:
        """Return what transcribes; it compiles nothing that is there."""
        return make_transcriber(
            self.route.way,
            self._model.generator(self.route.options(self._options)),
            batch_size=self.batch_size,
            chunk_length_s=self.route.chunk_length_s,
            stride_length_s=self.route.stride_length_s,
            chunk_merging=self.route.chunk_merging,
        )


@dataclasses.dataclass(frozen=True)
class _Named:
    """What a recording is told by on its way: its samples go, this stays."""

    name: Any
    seconds: float
    error: InputError | None
