"""Recordings of any length in windows of packed speech: every window is decoded once, none overlap."""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import CHUNK_SAMPLES, SAMPLING_RATE
from flax_distil.audio.speech_windows import SpeechWindow, speech_windows
from flax_distil.audio.vad_config import VadName
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Float
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.recordings import (
    Name,
    OnSegment,
    Recordings,
    RecordingTranscriber,
    tell_segments,
)
from flax_distil.transcription.results import Transcript
from flax_distil.transcription.short_form import ShortFormTranscriber
from flax_distil.transcription.vad.recording import PackedRecording


class _Window(NamedTuple):
    """What a window is known by while it is decoded."""

    name: Any
    recording: PackedRecording
    place: SpeechWindow
    samples_W: Float[np.ndarray, " W"]


class VadTranscriber(RecordingTranscriber):
    """Transcribes recordings of any length: speech is found and packed into windows.

    The windows of all recordings are one stream of full batches, so one long recording fills a batch as
    well as many do. Silences of more than ``min_silence_duration_ms`` are left out. The language is that of a
    recording's first window, or with ``multilingual`` that of each window. Timestamps are not needed: where
    they are not asked for, a window's text is one segment. Where they are, speech behind the last of them is
    decoded in a window of its own: with timestamps, small models sometimes end a text early.

    Source: the batched pipeline of faster-whisper does the same with regions of speech.
    """

    def __init__(self, generator: WhisperGenerator, *, batch_size: int, pad_batches: bool = False):
        """Bind a generator; compiles nothing.

        Args:
            generator: The checkpoint. Its option ``vad`` names the detector; by default it is chosen.
            batch_size: Maximum number of windows decoded at once.
            pad_batches: Pad every batch to ``batch_size``, so that only this size is compiled.

        Raises:
            InputError: As ``RecordingTranscriber``, or if Silero is asked for and not installed.
        """
        super().__init__(generator, batch_size=batch_size)
        options = generator.options
        self._windows = _WindowTranscriber(generator, batch_size=batch_size, pad_batches=pad_batches)
        self._detector = VoiceActivity(cast(VadName, options.vad or "auto"), options.vad_parameters)
        self._detects = options.language is None and generator.tokenizer.special.is_multilingual

    def warm_up(self) -> float:
        """Compile for batches of every size and return the seconds it took."""
        return self._windows.warm_up()

    def transcribe_recordings(
        self, recordings: Recordings[Name], *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; transcripts come in the order of the recordings."""
        waiting: deque[tuple[Any, PackedRecording]] = deque()  # recordings in order, until they are finished
        rests: deque[_Window] = deque()
        under_way = 0

        def windows() -> Iterator[_Window | None]:
            for window in self._first_windows(recordings, waiting):
                while rests:
                    yield rests.popleft()
                yield window
            while rests or under_way:  # None waits for what is under way, which may leave a rest
                yield rests.popleft() if rests else None

        def stream() -> Iterator[tuple[_Window, Float[np.ndarray, " _"]] | None]:
            nonlocal under_way
            for window in windows():
                under_way += window is not None
                yield None if window is None else (window, window.samples_W)

        for window, transcript in self._windows.transcribe_recordings(stream()):
            under_way -= 1
            rest = window.recording.add(window.place, transcript)
            if rest is not None:
                samples_W = window.samples_W[len(window.samples_W) - round(rest.seconds * SAMPLING_RATE) :]
                rests.append(window._replace(place=rest, samples_W=samples_W))
            tell_segments(on_segment, window.name, window.recording.take_segments())
            while waiting and waiting[0][1].is_finished:
                name, finished = waiting.popleft()
                yield name, finished.transcript()
        for name, finished in waiting:  # those behind the last window, in which nobody speaks
            yield name, finished.transcript()

    def _first_windows(
        self, recordings: Recordings[Name], waiting: deque[tuple[Any, PackedRecording]]
    ) -> Iterator[_Window | None]:
        """Yield the windows of each recording as they are packed, and note the recording in ``waiting``."""
        for given in recordings:
            if given is None:
                yield None
                continue
            name, samples_W = given
            recording = self._begin(samples_W)
            waiting.append((name, recording))
            for place in tuple(recording.windows):
                yield _Window(name, recording, place, place.samples(samples_W))

    def _begin(self, samples_W: Float[np.ndarray, " W"]) -> PackedRecording:
        """Find the windows of a recording, and its language if that is to be detected once."""
        config, options = self.generator.config, self.generator.options
        blocks = (
            samples_W[start : start + CHUNK_SAMPLES] for start in range(0, len(samples_W), CHUNK_SAMPLES)
        )
        windows = speech_windows(blocks, self._detector, longest_seconds=config.window_seconds)
        language, probabilities = None if self._detects else options.language or "en", None
        if self._detects and not options.multilingual and len(windows) > 1:
            probabilities = self._language_probabilities(windows[0].samples(samples_W))
            language = max(probabilities, key=probabilities.__getitem__)
        return PackedRecording(
            windows,
            seconds=len(samples_W) / SAMPLING_RATE,
            language=language,
            language_probabilities=probabilities,
        )

    def _language_probabilities(self, samples_W: Float[np.ndarray, " W"]) -> dict[str, float]:
        window = pad_or_trim(samples_W, length=self.generator.config.window_samples)
        encoder_out = self.generator.encode_samples(np.tile(window, (self.rows_for(1), 1)))
        return self.generator.language_probabilities(encoder_out)[0]


class _WindowTranscriber(ShortFormTranscriber):
    """Transcribes windows, each in the language of its recording where that is known."""

    def language_of(self, name: _Window) -> str | None:
        """See ``ShortFormTranscriber``."""
        return name.recording.language
