"""One recording, or a chunk of one, on its way through sequential transcription.

Where it stands, and what was said so far. No device is touched here: ``SequentialTranscriber`` decodes the
windows that recordings ask for::

    request ── decoded ──> receive ── failed a threshold ──> the same window, next temperature
                              ├────── silence ────────────> the window behind it
                              └────── accept ─────────────> a window at the last complete timestamp
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from flax_distil.audio.constants import CHUNK_FRAMES, HOP_LENGTH
from flax_distil.audio.long_mel import LongMel
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.chunking import Chunk
from flax_distil.transcription.fallback import attempt_seed, best_attempt, is_silence, needs_fallback
from flax_distil.transcription.generator import DecodingRequest, DecodingResult
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import AlignedWord, TranscribedSegment, Transcript
from flax_distil.transcription.sequential.clip_timestamps import seek_clips
from flax_distil.transcription.sequential.decoded_window import DecodedWindow, KeptSegment
from flax_distil.transcription.sequential.hallucinations import (
    Heard,
    WindowPlace,
    last_word_end,
    skip_hallucinations,
)
from flax_distil.transcription.sequential.split_by_timestamps import (
    FRAMES_PER_SECOND,
    CutSegment,
    split_by_timestamps,
)
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap
from flax_distil.transcription.window_limits import reached_limit
from flax_distil.transcription.words.word_segments import attach_words

log = logging.getLogger(__name__)

LAST_TRUSTED_TEMPERATURE = 0.5
"""Text of a window that was tried at a higher one is no prompt for the next."""

FAINTEST_LOG10 = -8.0
"""A window whose features stay below this holds at most the rounding noise of 16-bit samples (-86 dB).

Models may hear words in it, and be sure of them: tiny.en says "you" to digital silence, log-probability -0.7.
"""


class SequentialRecording:
    """A recording, or a chunk of it, and the state of its transcription.

    Attributes:
        language: code; None until it is detected.
        language_probabilities: of each language, where it was detected.
        kept: what was said so far.
        no_speech_prob: of the least silent window so far; 1 if there was none.
        temperature: the highest tried so far.
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
        """Begin at the beginning.

        Args:
            mel: features of all of it.
            tokenizer: of the checkpoint.
            options: what to transcribe into, and how.
            prompts: builds the prompts of windows.
            limit: most tokens of a window.
            speech_map: where the samples come from, if silence was cut out.
            chunk: the part of the recording to transcribe; by default all of it. What is said in its right
                stride is left to the next chunk, unless a window reaches so far.
            window: frames that the model hears at once.
        """
        self._window = window
        chunk = chunk or Chunk(0, len(mel.log10_RM) * HOP_LENGTH, 0, 0)
        self._mel, self._frames = mel, chunk.stop // HOP_LENGTH
        self._enough = (chunk.stop - chunk.stride_right) // HOP_LENGTH
        self._is_beginning = chunk.start == 0
        self._tokenizer, self._options, self._prompts = tokenizer, options, prompts
        self._limit, self._speech_times = limit, speech_map
        multilingual = tokenizer.special.is_multilingual
        self.language = options.language if multilingual else "en"
        self.language_probabilities: Mapping[str, float] | None = None
        self._window_language: str | None = None
        self._attempts: list[DecodingResult] = []
        first = chunk.start // HOP_LENGTH
        self._tried, self._last_speech = 0.0, first / FRAMES_PER_SECOND
        self._text_end = self._last_speech
        self._clips = seek_clips(options.clips, self._frames)
        self._seek = self._first_heard = self._next_seek(first)
        self._previous: list[int] = list(prompts.initial)
        self.kept: list[KeptSegment] = []
        self._told = 0
        self.no_speech_prob, self.temperature = 1.0, 0.0

    @property
    def is_heard(self) -> bool:
        """Whether there is, or was, a window to decode."""
        return self._first_heard < self._enough

    @property
    def finished(self) -> bool:
        """Whether no window is left."""
        return self._seek >= self._enough

    @property
    def parts(self) -> "tuple[SequentialRecording, ...]":
        """What is decoded in a row of a batch of its own: a recording that is not cut is one part."""
        return (self,)

    @property
    def window_frames(self) -> int:
        """Frames of the present window that belong to the recording, at most as many as the model hears."""
        end = self._clips[0].end if self._clips else self._frames
        return min(self._window, end - self._seek)

    @property
    def frames(self) -> int:
        """Frames of all that is transcribed, at 100 a second."""
        return self._frames

    @property
    def attempt(self) -> int:
        """How many temperatures the present window has failed at."""
        return len(self._attempts)

    def features(self) -> np.ndarray:
        """Return the features of the present window."""
        return self._mel.window(self._seek, self.window_frames, length=self._window)

    def set_language(self, probabilities: Mapping[str, float]) -> None:
        """Take the likeliest language for the whole recording."""
        self.language = max(probabilities, key=probabilities.__getitem__)
        self.language_probabilities = probabilities

    def set_window_language(self, probabilities: Mapping[str, float]) -> None:
        """Take the likeliest language for the present window alone."""
        self._window_language = max(probabilities, key=probabilities.__getitem__)

    @property
    def _spoken(self) -> str:
        """The language of the present window."""
        return self._window_language or self.language or "en"

    def request(self) -> DecodingRequest:
        """Return how the present window is decoded; depends on nothing but this recording and the options."""
        return DecodingRequest(
            prompt=self._prompts.build(
                self._spoken,
                self._previous,
                with_prefix=self._is_beginning and self._seek == self._first_heard,
            ),
            limit=self._limit,
            temperature=self._options.temperatures[self.attempt],
            seed=attempt_seed(self._options, self._seek, self.attempt),
        )

    def receive(self, result: DecodingResult) -> DecodedWindow | None:
        """Return a window to :meth:`accept`; None if it is to be tried again, or is silence and skipped."""
        self._tried = result.temperature
        self.temperature = max(self.temperature, self._tried)
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
        cut = split_by_timestamps(result.tokens, self._tokenizer.special, self.window_frames)
        if reached_limit(result) and cut.advance == self.window_frames:
            log.warning(
                "the window at %.2f s ends at its limit of %d tokens without a timestamp to go on from: what "
                "is said behind it, up to %.2f s, is missing",
                self._seek / FRAMES_PER_SECOND,
                len(result.tokens),
                (self._seek + self.window_frames) / FRAMES_PER_SECOND,
            )
        return DecodedWindow(
            result=result,
            cut=cut,
            segments=tuple(self._segment(segment, result) for segment in cut.segments),
            language=self._spoken,
            frames=self.window_frames,
            offset=self._seek / FRAMES_PER_SECOND,
        )

    def accept(self, window: DecodedWindow, words: Sequence[AlignedWord] | None = None) -> None:
        """Keep what was said in a window and go on to the next.

        Args:
            window: as received.
            words: of all its text, where they are asked for: where the last one ends, the next window begins.
        """
        result, segments = window.result, window.segments
        seek = self._seek + window.cut.advance
        if words is not None:
            segments, _ = attach_words(
                segments,
                words,
                last_speech_timestamp=self._last_speech,
                offset=window.offset,
                punctuations=self._options.punctuations,
            )
            end = last_word_end(segments)
            if end is not None and end > window.offset and not window.cut.single_timestamp_ending:
                seek = round(end * FRAMES_PER_SECOND)
            heard = self._without_hallucinations(segments, window, seek)
            seek = heard.seek
            if heard.segments is None:
                self._seek = self._next_seek(seek)
                return
            segments = segments[: heard.segments]
            self._last_speech = last_word_end(segments) or self._last_speech
        self._keep(
            [
                (segment, part.tokens)
                for segment, part in zip(segments, window.cut.segments, strict=False)
                if segment.start != segment.end and segment.text.strip()
            ],
            result,
        )
        if not self._options.condition_on_prev_tokens or self._tried > LAST_TRUSTED_TEMPERATURE:
            self._previous = []
        self._seek = self._next_seek(seek)

    def _without_hallucinations(
        self, segments: Sequence[TranscribedSegment], window: DecodedWindow, seek: int
    ) -> Heard:
        """Return what is kept of a window whose words are known, and where the next one begins."""
        threshold = self._options.hallucination_silence_threshold
        if threshold is None:
            return Heard(segments=len(segments), seek=seek)
        place = WindowPlace(
            seek=self._seek,
            frames=window.frames,
            most_frames=self._window,
            recording_frames=self._frames,
            single_timestamp_ending=window.cut.single_timestamp_ending,
            last_speech=self._last_speech,
        )
        return skip_hallucinations(segments, place, seek=seek, threshold=threshold)

    def take_segments(self) -> list[TranscribedSegment]:
        """Return the segments that were kept since the last call."""
        found = [kept.segment for kept in self.kept[self._told :]]
        self._told = len(self.kept)
        return found

    def transcript(self) -> Transcript:
        """Return what was said.

        Times count from the beginning of the recording, and none lies behind its end. Tokens are those of the
        segments: what a window said behind its last complete segment is said again by the next. There is one
        log-probability for each, none for ends of text, and ``avg_logprob`` is their sum over their number
        plus one. The recording is as silent as its least silent window (1 if it has none), and its
        temperature is the highest tried.
        """
        segments = tuple(kept.segment for kept in self.kept)
        logprobs = [logprob for kept in self.kept for logprob in kept.token_logprobs]
        return Transcript(
            text="".join(segment.text for segment in segments).strip(),
            text_with_timestamps="".join(
                f"<|{segment.start:.2f}|>{segment.text}<|{segment.end:.2f}|>" for segment in segments
            ),
            tokens=[token for kept in self.kept for token in kept.tokens],
            token_logprobs=logprobs,
            avg_logprob=sum(logprobs) / (len(logprobs) + 1),
            no_speech_prob=self.no_speech_prob,
            language=self.language or "en",
            language_probabilities=self.language_probabilities,
            temperature=self.temperature,
            segments=segments,
        )

    def _keep(self, found: Sequence[tuple[TranscribedSegment, slice]], result: DecodingResult) -> None:
        """Keep segments of a window, with times within the recording."""
        special, end = self._tokenizer.special, self._frames / FRAMES_PER_SECOND
        segments = keep_within([segment for segment, _ in found], begin=self._text_end, end=end)
        for segment, (_, own) in zip(segments, found, strict=True):
            emitted = [
                (token, logprob)
                for token, logprob in zip(result.tokens[own], result.token_logprobs[own], strict=True)
                if not special.is_special(token)
            ]
            self._previous += [token for token, _ in emitted]
            self._text_end = segment.end or self._text_end
            self.kept.append(
                KeptSegment(
                    segment=self._speech_times.restore(segment) if self._speech_times else segment,
                    tokens=tuple(token for token, _ in emitted),
                    token_logprobs=tuple(logprob for _, logprob in emitted),
                )
            )

    def _next_seek(self, seek: int) -> int:
        """Return where the next window begins: there, or in the next clip; the end if nothing is left."""
        while self._clips:
            clip = self._clips[0]
            seek = self._behind_silence(max(seek, clip.start), clip.end)
            if seek < clip.end:
                return seek
            self._clips.pop(0)
            if self._clips:
                seek = self._clips[0].start
        return self._frames

    def _behind_silence(self, seek: int, end: int) -> int:
        """Step over windows without a sound, if silence is to be left out at all."""
        if self._options.thresholds.no_speech is not None:
            while seek < end and self._mel.loudest(seek, min(self._window, end - seek)) <= FAINTEST_LOG10:
                seek += self._window
        return seek

    def _segment(self, cut: CutSegment, result: DecodingResult) -> TranscribedSegment:
        tokens = tuple(token for token in result.tokens[cut.tokens] if self._tokenizer.special.is_text(token))
        return TranscribedSegment(
            start=(self._seek + cut.start) / FRAMES_PER_SECOND,
            end=(self._seek + cut.end) / FRAMES_PER_SECOND,
            text=self._tokenizer.decode(tokens),
            tokens=tokens,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            temperature=result.temperature,
            compression_ratio=compression_ratio(self._tokenizer.decode(result.tokens).strip()),
            seek=self._seek,
            emitted_tokens=tuple(result.tokens[cut.tokens]),
        )
