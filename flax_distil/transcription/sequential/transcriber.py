"""Transcribes recordings of any length window after window, many of them at once.

Each row of a batch is a recording, or a chunk of one, in its own place and at its own temperature. Batches
are as large as there is work for: they shrink and grow by powers of two, each compiled once.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from flax_distil.audio.long_mel import BLOCK_SAMPLES, LongMel, long_log_mel
from flax_distil.audio.mel import log10_mel
from flax_distil.audio.vad_config import VadName
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Array, Float
from flax_distil.core.errors import InputError
from flax_distil.parallel.partitioner import ROWS
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.recordings import (
    Name,
    OnSegment,
    Recordings,
    RecordingTranscriber,
    tell_segments,
)
from flax_distil.transcription.results import AlignedWord, Transcript
from flax_distil.transcription.sequential.decoded_window import DecodedWindow
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap, collect_speech
from flax_distil.transcription.sequential.window_encoder import WindowEncoder
from flax_distil.transcription.sequential.work_queue import (
    RecordingInProgress,
    Row,
    WorkQueue,
    first_part,
)
from flax_distil.transcription.words.word_timestamps import AlignmentRequest, WordAligner

_END_OF_RECORDINGS: Any = object()


class SequentialTranscriber(RecordingTranscriber):
    """Transcribes recordings of any length; a result does not depend on the other recordings.

    A window of 30 s is decoded with timestamps and moved to the last complete one. A window that fails
    a threshold is decoded again at the next temperature, while the other rows go on. Features are
    normalized by the whole recording's maximum. The language is detected once, in the first window as it
    is decoded (OpenAI's code takes real silence behind recordings of less than 30 s), or with
    ``multilingual`` in every window; a transcript's language is that of its first one.

    Source: ``transcribe`` of openai/whisper.
    """

    def __init__(self, generator: WhisperGenerator, *, batch_size: int):
        """Bind a generator; compiles nothing.

        Args:
            generator: The checkpoint; see :func:`long_form_defaults` for its options.
            batch_size: Windows decoded at once at most, each of another recording.

        Raises:
            InputError: If the decoder's options are without timestamps, the batch cannot be
                divided over the devices, or Silero is asked for and not installed.
        """
        super().__init__(generator, batch_size=batch_size)
        options = generator.options
        if not options.return_timestamps:
            raise InputError(
                "sequential transcription finds the next window by timestamps: set return_timestamps"
            )
        self._aligner = WordAligner(generator) if options.word_timestamps else None
        self._detector = (
            None if options.vad is None else VoiceActivity(cast(VadName, options.vad), options.vad_parameters)
        )
        # Half of the positions are left to previous text.
        half = generator.config.max_target_positions // 2
        self._limit = options.max_new_tokens or min(generator.max_new_tokens, half)

    def warm_up(self) -> float:
        """Compile everything that recordings may need, and return the seconds it took."""
        began = time.perf_counter()
        generator = self.generator
        self._blocks(np.zeros((generator.partitioner.local_batch_shards, BLOCK_SAMPLES), np.float32))()
        for rows in self.batch_sizes:
            encoder_out = generator.encode_features(self._features([], rows))
            generator.warm_up_generate(encoder_out, rows)
            if self._aligner is not None:
                self._aligner.warm_up(rows, encoder_out)
        return time.perf_counter() - began

    def transcribe_recordings(
        self, recordings: Recordings[Name], *, on_segment: OnSegment | None = None
    ) -> Iterator[tuple[Name, Transcript]]:
        """See ``RecordingTranscriber``; a recording shorter than a frame (10 ms) has an empty transcript."""
        source = iter(recordings)
        queue = WorkQueue(self.batch_size)
        encoder_out = WindowEncoder(self.generator, features=self._features, rows_for=self.rows_for)
        while True:
            yield from self._fill(queue, source)
            if not queue:
                return
            rows = queue.take_batch()
            self._step(rows, encoder_out)
            for row in rows:
                queue.put_back(row)
            for row in {id(row.recording): row for row in rows}.values():
                if on_segment is not None:
                    tell_segments(on_segment, row.name, row.recording.take_segments())
                if row.recording.is_finished:
                    queue.forget(row.recording)
                    yield row.name, row.recording.transcript()

    def _fill(self, queue: WorkQueue, source: Iterator[Any]) -> Iterator[tuple[Any, Transcript]]:
        """Begin recordings while there is room; yield the transcripts of those with nothing to decode."""
        while queue.has_room:
            given = next(source, _END_OF_RECORDINGS)
            if given is _END_OF_RECORDINGS or (given is None and queue):
                return
            if given is None:
                continue
            name, samples_W = given
            recording = self._begin(samples_W)
            if recording.is_finished:
                yield name, recording.transcript()
            else:
                queue.add(name, recording)

    def _begin(self, samples_W: Float[np.ndarray, " W"]) -> RecordingInProgress:
        """Compute the features of a recording, after which its samples are not needed."""
        generator, times = self.generator, None
        if self._detector is not None:
            samples_W, times = collect_speech(samples_W, self._detector)
        mel = long_log_mel(
            samples_W,
            self._blocks,
            rows=generator.partitioner.local_batch_shards,
            num_mel_bins=generator.config.num_mel_bins,
        )
        return self._recording(mel, times)

    def _recording(self, mel: LongMel, speech_map: SpeechTimestampsMap | None) -> RecordingInProgress:
        """Return the state of a recording at its beginning."""
        return self._part(mel, speech_map=speech_map)

    def _part(self, mel: LongMel, **place: Any) -> SequentialRecording:
        generator = self.generator
        return SequentialRecording(
            mel,
            tokenizer=generator.tokenizer,
            options=generator.options,
            prompts=generator.prompts,
            limit=self._limit,
            window=2 * generator.config.max_source_positions,
            **place,
        )

    def _step(self, rows: Sequence[Row], encoded: WindowEncoder) -> None:
        """Decode the present window of every row.

        Args:
            rows: The rows of the batch.
            encoded: Keeps the encoder output of windows that are tried again.
        """
        generator, parts = self.generator, [row.part for row in rows]
        size = self.rows_for(len(parts))
        encoder_out = encoded.encode(parts)
        self._detect_languages(rows, encoder_out)
        idle = [None] * (size - len(parts))
        requests = [*(part.request() for part in parts), *idle]
        results = generator.collect(generator.dispatch(encoder_out, requests))[: len(parts)]
        windows = [
            None if result is None else part.receive(result)
            for part, result in zip(parts, results, strict=True)
        ]
        words = self._words([*windows, *idle], encoder_out)[: len(parts)]
        for part, window, found in zip(parts, windows, words, strict=True):
            if window is not None:
                part.accept(window, found)
        encoded.keep(parts, encoder_out)

    def _words(
        self, windows: Sequence[DecodedWindow | None], encoder_out: EncoderOutput
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
        return [words or () for words in self._aligner.align(encoder_out, requests)]

    def _features(self, parts: Sequence[SequentialRecording], rows: int) -> Float[np.ndarray, "B R M"]:
        """Return the windows of a batch; a new array, since the devices may still read the last one."""
        config = self.generator.config
        mel_BRM = np.zeros((rows, 2 * config.max_source_positions, config.num_mel_bins), np.float32)
        for row, part in enumerate(parts):
            mel_BRM[row] = part.features()
        return mel_BRM

    def _detect_languages(self, rows: Sequence[Row], encoder_out: EncoderOutput) -> None:
        """Detect the language of new recordings: that of their first window is that of all parts.

        With ``multilingual``, that of every window that was not tried before.
        """
        of_windows = self.generator.options.multilingual and self.generator.tokenizer.special.is_multilingual
        asked = [row.part.language is None or (of_windows and not row.part.attempt) for row in rows]
        if not any(asked):
            return
        found = self.generator.language_probabilities(encoder_out)
        for row, probabilities in zip(rows, found, strict=False):
            if row.part.language is None and row.part is first_part(row.recording):
                for part in row.recording.parts:
                    part.set_language(probabilities)
            if of_windows and not row.part.attempt:
                row.part.set_window_language(probabilities)

    def _blocks(self, blocks_BW: Float[np.ndarray, "B W"]) -> Callable[[], Float[np.ndarray, "B R M"]]:
        """Start the features of some blocks; see ``long_log_mel``."""
        partitioner = self.generator.partitioner
        features = functools.partial(_block_features, self.generator.config.num_mel_bins)
        batch = partitioner.put_batch({"blocks_BW": blocks_BW})
        started = partitioner.jit(features, in_specs=(ROWS,), out_specs=ROWS)(batch)
        return lambda: partitioner.local_rows(started)


def _block_features(num_mel_bins: int, batch: Mapping[str, Array]) -> Array:
    return log10_mel(batch["blocks_BW"], num_mel_bins=num_mel_bins)
