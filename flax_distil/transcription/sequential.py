"""Long recordings, window after window, many of them at once.

Each row of a batch works on a recording of its own, in its own place and at its own temperature, and
takes the next recording when it is done. Rows that find none idle. Shapes never change.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from flax_distil.audio import (
    BLOCK_SAMPLES,
    CHUNK_FRAMES,
    VadName,
    VoiceActivity,
    log10_mel,
    long_log_mel,
)
from flax_distil.core import Array, Float, InputError
from flax_distil.parallel import BATCH, ROWS, Runner
from flax_distil.transcription.options import FALLBACK_TEMPERATURES, TranscriptionOptions
from flax_distil.transcription.recordings import RecordingTranscriber
from flax_distil.transcription.results import AlignedWord, Transcript
from flax_distil.transcription.sequential_recording import DecodedWindow, SequentialRecording
from flax_distil.transcription.vad_filter import keep_speech
from flax_distil.transcription.window_decoder import States, WindowDecoder
from flax_distil.transcription.word_timestamps import AlignmentRequest, WordAligner

Name = TypeVar("Name")


def long_form_defaults(
    options: TranscriptionOptions, *, keep_temperature: bool = False
) -> TranscriptionOptions:
    """Return options for sequential transcription: timestamps, and the usual thresholds where none is given.

    1.35 for the compression of ids (unless that of text has a threshold or is "off"), -1 for the average
    log-probability, 0.6 for silence, and temperatures from 0 to 1 in steps of 0.2.

    Args:
        options: what else to do.
        keep_temperature: leave temperature 0 alone, which counts as not given otherwise.

    Source: RECIPE 6.
    """
    usual: dict[str, Any] = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6}
    if options.compression_ratio_threshold is None:
        usual["token_compression_ratio_threshold"] = 1.35
    changed = {name: value for name, value in usual.items() if getattr(options, name) is None}
    if options.temperature == (0.0,) and not keep_temperature:
        changed["temperature"] = FALLBACK_TEMPERATURES
    return dataclasses.replace(options, return_timestamps=True, **changed)


class SequentialTranscriber(RecordingTranscriber):
    """Recordings of any length; results are those of one recording at a time.

    A window of 30 s is decoded with timestamps and moved to the last complete one. A window that fails
    a threshold is decoded again at the next temperature, while the other rows go on. Features are
    normalised by the whole recording's maximum. The language is detected once, in the first window as it
    is decoded (OpenAI's code takes real silence behind recordings of less than 30 s).

    Source: openai/whisper, ``transcribe``; RECIPE 6.
    """

    def __init__(self, decoder: WindowDecoder, *, batch_size: int):
        """Bind a decoder; compiles nothing.

        Args:
            decoder: of the checkpoint; see :func:`long_form_defaults` for its options.
            batch_size: recordings under way at once.

        Raises:
            InputError: if the decoder's options are without timestamps, the batch cannot be
                divided over the devices, or Silero is asked for and not installed.
        """
        super().__init__(decoder, batch_size=batch_size)
        options = decoder.options
        if not options.return_timestamps:
            raise InputError(
                "sequential transcription finds the next window by timestamps: set return_timestamps"
            )
        decoder.runner.check_rows("a batch of recordings", batch_size)
        self._aligner = WordAligner(decoder) if options.word_timestamps else None
        self._detector = None if options.vad is None else VoiceActivity(cast(VadName, options.vad))
        # Half of the positions are left to previous text.
        half = decoder.config.max_target_positions // 2
        self._limit = options.max_new_tokens or min(decoder.max_new_tokens, half)

    def warm_up(self) -> float:
        """Compile everything that recordings may need, and return the seconds it took."""
        began = time.perf_counter()
        decoder = self.decoder
        self._blocks(np.zeros((decoder.runner.local_batch_shards, BLOCK_SAMPLES), np.float32))()
        states = decoder.encode_features(self._features([None] * self.batch_size))
        decoder.warm_up_search(states, self.batch_size)
        if self._aligner is not None:
            self._aligner.warm_up(self.batch_size)
        return time.perf_counter() - began

    def transcribe_recordings(
        self, recordings: Iterable[tuple[Name, Float[np.ndarray, " W"]]]
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; a recording shorter than a frame (10 ms) has an empty transcript."""
        waiting = iter(recordings)
        rows: list[tuple[Name, SequentialRecording] | None] = [None] * self.batch_size
        states: States | None = None
        while True:
            for row, working in enumerate(rows):
                if working is None:
                    rows[row] = yield from self._next(waiting)
            if not any(rows):
                return
            states = self._step([None if working is None else working[1] for working in rows], states)
            for row, working in enumerate(rows):
                if working is not None and working[1].finished:
                    yield working[0], working[1].transcript()
                    rows[row] = None

    def _next(
        self, waiting: Iterator[tuple[Name, Float[np.ndarray, " W"]]]
    ) -> Generator[tuple[Name, Transcript], None, tuple[Name, SequentialRecording] | None]:
        """Begin the next recording; yield the transcripts of those in which there is nothing."""
        for name, samples_W in waiting:
            recording = self._begin(samples_W)
            if not recording.finished:
                return name, recording
            yield name, recording.transcript()
        return None

    def _begin(self, samples_W: Float[np.ndarray, " W"]) -> SequentialRecording:
        """Compute the features of a recording; its samples are not needed any longer."""
        decoder, times = self.decoder, None
        if self._detector is not None:
            samples_W, times = keep_speech(samples_W, self._detector)
        mel = long_log_mel(
            samples_W,
            self._blocks,
            rows=decoder.runner.local_batch_shards,
            num_mel_bins=decoder.config.num_mel_bins,
        )
        return SequentialRecording(
            mel,
            tokenizer=decoder.tokenizer,
            options=decoder.options,
            prompts=decoder.prompts,
            limit=self._limit,
            speech_times=times,
        )

    def _step(self, rows: Sequence[SequentialRecording | None], states: States | None) -> States:
        """Decode the present window of every row.

        Args:
            rows: recordings under way, None of rows without one.
            states: of the step before; used again if all rows try their windows again.

        Returns:
            The encoder states the windows were decoded from.
        """
        decoder = self.decoder
        if states is None or any(recording.attempt == 0 for recording in rows if recording is not None):
            states = decoder.encode_features(self._features(rows))
        self._detect_languages(rows, states)
        requests = [None if recording is None else recording.request() for recording in rows]
        results = decoder.collect(decoder.dispatch(states, requests))
        windows = [
            None if recording is None or result is None else recording.receive(result)
            for recording, result in zip(rows, results, strict=True)
        ]
        words = self._words(windows, states)
        for recording, window, found in zip(rows, windows, words, strict=True):
            if recording is not None and window is not None:
                recording.accept(window, found)
        return states

    def _words(
        self, windows: Sequence[DecodedWindow | None], states: States
    ) -> Sequence[Sequence[AlignedWord] | None]:
        """Return the words of every window; None of all windows if words are not asked for."""
        if self._aligner is None:
            return [None] * len(windows)
        requests = [
            AlignmentRequest(tokens=window.text_tokens, language=window.language, frames=window.frames)
            if window is not None and window.text_tokens
            else None
            for window in windows
        ]
        if not any(requests):
            return [()] * len(windows)
        return [words or () for words in self._aligner.align(states, requests)]

    def _features(self, rows: Sequence[SequentialRecording | None]) -> Float[np.ndarray, "B R M"]:
        """Return the windows of a batch; a new array, since the devices may still read the last one."""
        mel_BRM = np.zeros((len(rows), CHUNK_FRAMES, self.decoder.config.num_mel_bins), np.float32)
        for row, recording in enumerate(rows):
            if recording is not None:
                mel_BRM[row] = recording.features()
        return mel_BRM

    def _detect_languages(self, rows: Sequence[SequentialRecording | None], states: States) -> None:
        """Detect the language of new recordings."""
        if all(recording is None or recording.language is not None for recording in rows):
            return
        found = self.decoder.language_probabilities(states)
        for recording, probabilities in zip(rows, found, strict=True):
            if recording is not None and recording.language is None:
                recording.set_language(probabilities)

    def _blocks(self, blocks_BW: Float[np.ndarray, "B W"]) -> Callable[[], Float[np.ndarray, "B R M"]]:
        """Start the features of some blocks; see ``long_log_mel``."""
        runner = self.decoder.runner
        program = _mel_program(runner, self.decoder.config.num_mel_bins)
        started = program(runner.put_batch({"blocks_BW": blocks_BW}))
        return lambda: runner.rows(started)


@functools.lru_cache(maxsize=8)
def _mel_program(runner: Runner, num_mel_bins: int) -> Callable[..., Array]:
    function = functools.partial(_block_features, num_mel_bins)
    return runner.program(runner.per_device(function, arguments=(BATCH,), results=ROWS))


def _block_features(num_mel_bins: int, batch: Mapping[str, Array]) -> Array:
    return log10_mel(batch["blocks_BW"], num_mel_bins=num_mel_bins)
