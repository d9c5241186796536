"""Recordings of any length through one checkpoint, in batches."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.inputs.split_channels import (
    ChannelJoiner,
    ChannelName,
    plain_name,
    split_recordings,
)
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.recordings import OnSegment, RecordingTranscriber
from flax_distil.transcription.results import TranscribedSegment, Transcript, without_text


class Scheduler:
    """Feeds recordings to a transcriber as it has room for them, and yields what becomes of each.

    Programs are compiled once per size of batch: powers of two times the devices, up to ``batch_size``.

    Attributes:
        batch_size: Number of rows of a full batch.
    """

    def __init__(
        self,
        model: TranscriptionModel,
        partitioner: Partitioner,
        options: TranscriptionOptions,
        mode: TranscribeMode,
        batch_size: int,
    ):
        """Bind a checkpoint, whose weights are read when they are first needed.

        Args:
            model: The checkpoint.
            partitioner: The devices it is on.
            options: What to transcribe into, and how.
            mode: How recordings are cut into windows.
            batch_size: Maximum number of windows decoded at once, rounded up to a multiple of the devices of
                this process. With 1, a recording is answered before the next one is taken.
        """
        self._mode, self._model, self._options = mode, model, options
        self._one_by_one = batch_size == 1
        shards = partitioner.local_batch_shards
        self.batch_size = -(-batch_size // shards) * shards

    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""
        return self._transcriber().warm_up()

    def transcribe(
        self, recordings: Iterable[LoadedAudio | None], *, on_segment: OnSegment | None = None
    ) -> Iterator[TranscriptionOutcome]:
        """Yield what becomes of each recording as soon as it is known; the order may change.

        Recordings are taken as there is room for them; with a ``batch_size`` of 1 each is answered before the
        next one is taken.

        Args:
            recordings: Recordings that were read; None means that the next one is not there yet, see
                ``RecordingTranscriber``.
            on_segment: Called with the name of a recording and a segment of it that no later window can
                change, while the recording is still being transcribed.
        """
        transcriber, joiner = self._transcriber(), ChannelJoiner()
        tell = None if on_segment is None else functools.partial(_tell, on_segment)
        for together in self._grouped(recordings):
            labeled = map(self._label, together)
            for label, transcript in transcriber.transcribe_recordings(labeled, on_segment=tell):
                outcome = joiner.add(_outcome(label, transcript))
                if outcome is not None:
                    yield outcome

    def _grouped(self, recordings: Iterable[LoadedAudio | None]) -> Iterator[Iterable[LoadedAudio | None]]:
        """Yield channels that are transcribed together: all of them, or with a batch size of 1 one by one."""
        if not self._one_by_one:
            yield split_recordings(recordings)
        else:
            for recording in recordings:
                if recording is not None:
                    yield from ([channel] for channel in split_recordings([recording]))

    def _label(self, recording: LoadedAudio | None) -> "tuple[_Label, Float[np.ndarray, ' W']] | None":
        """Return a recording as transcribers take it: without samples if it is only to be refused."""
        if recording is None:
            return None
        seconds, error = len(recording.samples) / SAMPLING_RATE, recording.error
        longest = self._model.window_seconds
        if error is None and self._mode.windowing == "short" and seconds > longest:
            error = InputError(
                f"recording {plain_name(recording.name)!r} lasts {seconds:.1f} s, and mode short takes "
                f"at most {longest:g} s: use mode vad, chunked or sequential"
            )
        samples_W = recording.samples if error is None else recording.samples[:0]
        return _Label(recording.name, seconds, error), samples_W

    def _transcriber(self) -> RecordingTranscriber:
        """Return what transcribes; it compiles nothing that is there."""
        return make_transcriber(
            self._mode.windowing,
            self._model.generator(self._mode.with_defaults(self._options)),
            batch_size=self.batch_size,
            chunk_length_s=self._mode.chunk_length_s,
            stride_length_s=self._mode.stride_length_s,
            chunk_merging=self._mode.chunk_merging,
        )


class _Label(NamedTuple):
    """What a recording is known by while it is transcribed: its samples go, this stays."""

    name: Any
    seconds: float
    error: InputError | None


def _tell(on_segment: OnSegment, label: _Label, segment: TranscribedSegment) -> None:
    """Pass a segment on, under the name of its recording, unless the recording has none to tell."""
    if label.error is not None or not label.seconds:
        return
    if isinstance(label.name, ChannelName):
        on_segment(label.name.name, dataclasses.replace(segment, channel=label.name.channel))
    else:
        on_segment(label.name, segment)


def _outcome(label: _Label, transcript: Transcript) -> TranscriptionOutcome:
    if label.error is not None:
        return TranscriptionOutcome(name=label.name, seconds=0.0, error=label.error)
    found = transcript if label.seconds else without_text(transcript)
    return TranscriptionOutcome(name=label.name, seconds=label.seconds, transcript=found)
