"""Recordings of any length through one checkpoint, in batches."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.inputs.split_channels import (
    ChannelName,
    join_outcomes,
    plain_name,
    split_recordings,
)
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.recordings import OnSegment, RecordingTranscriber
from flax_distil.transcription.results import TranscribedSegment, without_text


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
        transcriber = self._transcriber()
        if not self._one_by_one:
            channels = split_recordings(recordings)
            yield from join_outcomes(self._transcribe(transcriber, channels, on_segment))
            return
        for recording in recordings:
            if recording is not None:
                outcomes = (
                    self._transcribe(transcriber, [channel], on_segment)
                    for channel in split_recordings([recording])
                )
                yield from join_outcomes(itertools.chain.from_iterable(outcomes))

    def _transcribe(
        self,
        transcriber: RecordingTranscriber,
        recordings: Iterable[LoadedAudio | None],
        on_segment: OnSegment | None,
    ) -> Iterator[TranscriptionOutcome]:
        def tell(recording: _Label, segment: TranscribedSegment) -> None:
            if on_segment is None or recording.error is not None or not recording.seconds:
                return
            if isinstance(recording.name, ChannelName):
                name, channel, _ = recording.name
                on_segment(name, dataclasses.replace(segment, channel=channel))
            else:
                on_segment(recording.name, segment)

        given = map(self._label, recordings)
        for (name, seconds, error), transcript in transcriber.transcribe_recordings(
            given, on_segment=None if on_segment is None else tell
        ):
            if error is not None:
                yield TranscriptionOutcome(name=name, seconds=0.0, error=error)
            else:
                found = transcript if seconds else without_text(transcript)
                yield TranscriptionOutcome(name=name, seconds=seconds, transcript=found)

    def _label(self, recording: LoadedAudio | None) -> "tuple[_Label, Float[np.ndarray, ' W']] | None":
        """Return a recording as transcribers take it: without samples if it is only to be refused."""
        if recording is None:
            return None
        seconds, error = len(recording.samples) / SAMPLING_RATE, recording.error
        longest = self._model.window_seconds
        if error is None and self._mode.windowing == "short" and seconds > longest:
            error = InputError(
                f"recording {plain_name(recording.name)!r} lasts {seconds:.1f} s, and mode short takes "
                f"at most {longest:g} s: use mode sequential or chunked"
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
