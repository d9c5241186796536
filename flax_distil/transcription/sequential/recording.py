"""The state of one recording, or of a chunk of one, in sequential transcription.

It holds the position and the segments so far. No device is used here: ``SequentialTranscriber`` decodes the
windows that recordings ask for::

    request ── decoded ──> receive ── failed a threshold ──> the same window, next temperature
                              ├────── silence ────────────> the window behind it
                              └────── accept ─────────────> a window at the last complete timestamp
"""

import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from flax_distil.audio.constants import CHUNK_FRAMES, HOP_LENGTH
from flax_distil.audio.long_mel import LongMel
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.chunking import Chunk
from flax_distil.transcription.decoding_request import DecodingRequest, DecodingResult
from flax_distil.transcription.fallback import attempt_seed, best_attempt, is_silence, needs_fallback
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import (
    AlignedWord,
    TranscribedSegment,
    Transcript,
    segments_transcript,
)
from flax_distil.transcription.sequential.clip_timestamps import seek_clips
from flax_distil.transcription.sequential.decoded_window import DecodedWindow
from flax_distil.transcription.sequential.hallucinations import (
    KeptPart,
    WindowPlace,
    last_word_end,
    skip_hallucinations,
)
from flax_distil.transcription.sequential.split_by_timestamps import (
    FRAMES_PER_SECOND,
    split_by_timestamps,
)
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap
from flax_distil.transcription.words.word_segments import attach_words

log = logging.getLogger(__name__)

LAST_TRUSTED_TEMPERATURE = 0.5
"""The text of a window that was decoded at a higher temperature does not prompt the next one."""

FAINTEST_LOG10 = -8.0
"""A window whose features stay below this holds at most the rounding noise of 16-bit samples (-86 dB).

Models may emit words there with a high probability: for silence tiny.en emits "you", log-probability -0.7.
"""


class SequentialRecording:
    """A recording, or a chunk of it, and the state of its transcription.

    Attributes:
        language: Code of the language; None until it is detected.
        language_probabilities: Probability of each language, where it was detected.
        kept: The segments so far.
        no_speech_prob: Lowest no-speech probability of the windows so far; 1 if there was none.
        temperature: Highest temperature tried so far.
    """

    def __init__(
        self,
        mel: LongMel,
        *,
        tokenizer: WhisperTokenizer,
        options: TranscriptionOptions,
        prompts: Prompts,
        limit: int,
        speech_map: SpeechTimestampsMap | None = None,
        chunk: Chunk | None = None,
        window: int = CHUNK_FRAMES,
    ):
        """Begin at the start of the recording.

        Args:
            mel: Features of all of it.
            tokenizer: Tokenizer of the checkpoint.
            options: What to transcribe into, and how.
            prompts: Builds the prompts of windows.
            limit: Most tokens of a window.
            speech_map: Maps times of the samples to times of the recording, if silence was cut out.
            chunk: The part of the recording to transcribe; by default all of it. What is said in its right
                stride is left to the next chunk, unless a window reaches so far.
            window: Frames that the model hears at once.
        """
        self._window = window
        chunk = chunk or Chunk(0, len(mel.log10_RM) * HOP_LENGTH, 0, 0)
        self._mel, self._frames = mel, chunk.stop // HOP_LENGTH
        self._stop_frame = (chunk.stop - chunk.stride_right) // HOP_LENGTH
        self._is_beginning = chunk.start == 0
        self._tokenizer, self._options, self._prompts = tokenizer, options, prompts
        self._limit, self._speech_map = limit, speech_map
        multilingual = tokenizer.special.is_multilingual
        self.language = options.language if multilingual else "en"
        self.language_probabilities: Mapping[str, float] | None = None
        self._window_language: str | None = None
        self._attempts: list[DecodingResult] = []
        first = chunk.start // HOP_LENGTH
        self._last_temperature, self._last_speech = 0.0, first / FRAMES_PER_SECOND
        self._text_end = self._last_speech
        self._clips = seek_clips(options.clips, self._frames)
        self._seek = self._first_seek = self._next_seek(first)
        self._previous: list[int] = list(prompts.initial)
        self.kept: list[TranscribedSegment] = []
        self._num_reported = 0
        self.no_speech_prob, self.temperature = 1.0, 0.0

    @property
    def has_windows(self) -> bool:
        """Whether there is, or was, a window to decode."""
        return self._first_seek < self._stop_frame

    @property
    def is_finished(self) -> bool:
        """Whether no window is left."""
        return self._seek >= self._stop_frame

    @property
    def parts(self) -> "tuple[SequentialRecording, ...]":
        """The parts that are decoded in rows of their own; a recording that is not cut is one part."""
        return (self,)

    @property
    def window_frames(self) -> int:
        """Number of frames of the present window that belong to the recording."""
        end = self._clips[0].end if self._clips else self._frames
        return min(self._window, end - self._seek)

    @property
    def frames(self) -> int:
        """Number of frames of 10 ms up to the end of what is transcribed."""
        return self._frames

    @property
    def attempt(self) -> int:
        """At how many temperatures the present window has failed."""
        return len(self._attempts)

    def features(self) -> np.ndarray:
        """Return the features of the present window."""
        return self._mel.window(self._seek, self.window_frames, length=self._window)

    def set_language(self, probabilities: Mapping[str, float]) -> None:
        """Take the most likely language for the whole recording."""
        self.language = max(probabilities, key=probabilities.__getitem__)
        self.language_probabilities = probabilities

    def set_window_language(self, probabilities: Mapping[str, float]) -> None:
        """Take the most likely language for the present window alone."""
        self._window_language = max(probabilities, key=probabilities.__getitem__)

    @property
    def _present_language(self) -> str:
        """The language of the present window."""
        return self._window_language or self.language or "en"

    def request(self) -> DecodingRequest:
        """Return how to decode the present window, which depends only on this recording and the options."""
        return DecodingRequest(
            prompt=self._prompts.build(
                self._present_language,
                self._previous,
                with_prefix=self._is_beginning and self._seek == self._first_seek,
            ),
            limit=self._limit,
            temperature=self._options.temperatures[self.attempt],
            seed=attempt_seed(self._options, self._seek, self.attempt),
        )

    def receive(self, result: DecodingResult) -> DecodedWindow | None:
        """Return a window for :meth:`accept`; None if it is decoded again, or skipped as silence."""
        self._last_temperature = result.temperature
        self.temperature = max(self.temperature, self._last_temperature)
        self._attempts.append(result)
        if needs_fallback(result, self._options, self._tokenizer):
            if self.attempt < len(self._options.temperatures):
                return None
            result = best_attempt(self._attempts, self._options, self._tokenizer)
        self._attempts = []
        self.no_speech_prob = min(self.no_speech_prob, result.no_speech_prob)
        if is_silence(result, self._options):
            self._seek = self._next_seek(self._seek + self.window_frames)
            return None
        split = split_by_timestamps(result.tokens, self._tokenizer.special, self.window_frames)
        if result.reached_limit and split.advance == self.window_frames:
            log.warning(
                "the window at %.2f s ends at its limit of %d tokens without a timestamp to go on from: what "
                "is said behind it, up to %.2f s, is missing",
                self._seek / FRAMES_PER_SECOND,
                len(result.tokens),
                (self._seek + self.window_frames) / FRAMES_PER_SECOND,
            )
        return DecodedWindow(
            segments=tuple(self._segment(*span, result) for span in split.spans),
            advance=split.advance,
            single_timestamp_ending=split.single_timestamp_ending,
            language=self._present_language,
            frames=self.window_frames,
            offset=self._seek / FRAMES_PER_SECOND,
        )

    def accept(self, window: DecodedWindow, words: Sequence[AlignedWord] | None = None) -> None:
        """Keep the transcript of a window and go on to the next one.

        Args:
            window: The window, as :meth:`receive` returned it.
            words: The words of its text, if they are asked for; the next window begins behind the last.
        """
        segments, seek = window.segments, self._seek + window.advance
        if words is not None:
            segments, _ = attach_words(
                segments,
                words,
                last_speech_timestamp=self._last_speech,
                offset=window.offset,
                punctuations=self._options.punctuations,
            )
            end = last_word_end(segments)
            if end is not None and end > window.offset and not window.single_timestamp_ending:
                seek = round(end * FRAMES_PER_SECOND)
            heard = self._drop_hallucinations(segments, window, seek)
            seek = heard.seek
            if heard.segments is None:
                self._seek = self._next_seek(seek)
                return
            segments = segments[: heard.segments]
            self._last_speech = last_word_end(segments) or self._last_speech
        self._keep([segment for segment in segments if segment.start != segment.end and segment.text.strip()])
        if not self._options.condition_on_prev_tokens or self._last_temperature > LAST_TRUSTED_TEMPERATURE:
            self._previous = []
        self._seek = self._next_seek(seek)

    def _drop_hallucinations(
        self, segments: Sequence[TranscribedSegment], window: DecodedWindow, seek: int
    ) -> KeptPart:
        """Return how much is kept of a window whose words are known, and where the next one begins."""
        threshold = self._options.hallucination_silence_threshold
        if threshold is None:
            return KeptPart(segments=len(segments), seek=seek)
        place = WindowPlace(
            seek=self._seek,
            frames=window.frames,
            most_frames=self._window,
            recording_frames=self._frames,
            single_timestamp_ending=window.single_timestamp_ending,
            last_speech=self._last_speech,
        )
        return skip_hallucinations(segments, place, seek=seek, threshold=threshold)

    def take_segments(self) -> list[TranscribedSegment]:
        """Return the segments that were kept since the last call."""
        found = self.kept[self._num_reported :]
        self._num_reported = len(self.kept)
        return found

    def transcript(self) -> Transcript:
        """Return the transcript.

        Times count from the beginning of the recording, and none lies behind its end. Tokens are those of the
        segments: text behind the last complete segment of a window is decoded again in the next. There is one
        log-probability for each, none for ends of text, and ``avg_logprob`` is their sum over their number
        plus one. The recording is as silent as its least silent window (1 if it has none), and its
        temperature is the highest tried.
        """
        return segments_transcript(
            self.kept,
            ends_of_text=1,
            no_speech_prob=self.no_speech_prob,
            language=self.language or "en",
            language_probabilities=self.language_probabilities,
            temperature=self.temperature,
        )

    def _keep(self, found: Sequence[TranscribedSegment]) -> None:
        """Keep segments of a window, with times within the recording."""
        end = self._frames / FRAMES_PER_SECOND
        for segment in keep_within(found, begin=self._text_end, end=end):
            self._previous += segment.kept_tokens
            self._text_end = segment.end or self._text_end
            self.kept.append(self._speech_map.restore(segment) if self._speech_map else segment)

    def _next_seek(self, seek: int) -> int:
        """Return where the next window begins: there, or in the next clip; the end if nothing is left."""
        while self._clips:
            clip = self._clips[0]
            seek = self._skip_silence(max(seek, clip.start), clip.end)
            if seek < clip.end:
                return seek
            self._clips.pop(0)
            if self._clips:
                seek = self._clips[0].start
        return self._frames

    def _skip_silence(self, seek: int, end: int) -> int:
        """Skip windows without sound, if there is a threshold for silence."""
        if self._options.thresholds.no_speech is not None:
            while seek < end and self._mel.loudest(seek, min(self._window, end - seek)) <= FAINTEST_LOG10:
                seek += self._window
        return seek

    def _segment(self, start: int, end: int, own: slice, result: DecodingResult) -> TranscribedSegment:
        """Return a segment of the present window; its start and end are frames of the window."""
        special, emitted = self._tokenizer.special, tuple(result.tokens[own])
        tokens = tuple(token for token in emitted if special.is_text(token))
        kept = [not special.is_special(token) for token in emitted]
        return TranscribedSegment(
            start=(self._seek + start) / FRAMES_PER_SECOND,
            end=(self._seek + end) / FRAMES_PER_SECOND,
            text=self._tokenizer.decode(tokens),
            tokens=tokens,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            temperature=result.temperature,
            compression_ratio=compression_ratio(self._tokenizer.decode(result.tokens).strip()),
            seek=self._seek,
            emitted_tokens=emitted,
            kept_tokens=tuple(itertools.compress(emitted, kept)),
            kept_logprobs=tuple(itertools.compress(result.token_logprobs[own], kept)),
        )
