"""One long recording on its way through sequential transcription: where it stands, and what was said so far.

No device is touched here. ``SequentialTranscriber`` decodes the windows that recordings ask for::

    request ── decoded ──> receive ── failed a threshold ──> the same window, next temperature
                              ├────── silence ────────────> the window behind it
                              └────── accept ─────────────> a window at the last complete timestamp
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from flax_distil.audio import CHUNK_FRAMES, LongMel
from flax_distil.text import WhisperTokenizer
from flax_distil.transcription.fallback import attempt_seed, best_attempt, failed, is_silence
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.results import AlignedWord, TranscribedSegment, Transcript
from flax_distil.transcription.vad_filter import SpeechTimes
from flax_distil.transcription.window_cut import CutSegment, WindowCut, cut_window
from flax_distil.transcription.window_decoder import WindowRequest, WindowResult
from flax_distil.transcription.word_segments import attach_words

FRAMES_PER_SECOND = 100
LAST_TRUSTED_TEMPERATURE = 0.5
"""Text of a window that was tried at a higher one is no prompt for the next."""

FAINTEST_LOG10 = -8.0
"""A window whose features stay below this holds at most the rounding noise of 16-bit samples (-86 dB).

Models may hear words in it, and be sure of them: tiny.en says "you" to digital silence, log-probability -0.7.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedWindow:
    """A window whose transcript is kept.

    Attributes:
        result: what was decoded.
        cut: where its timestamps cut it.
        segments: one for each of ``cut``.
        language: code.
        frames: of the window that belong to the recording.
        offset: seconds from the beginning of the recording to the window.
    """

    result: WindowResult
    cut: WindowCut
    segments: tuple[TranscribedSegment, ...]
    language: str
    frames: int
    offset: float

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """Ids of text of all segments."""
        return tuple(token for segment in self.segments for token in segment.tokens)


class SequentialRecording:
    """A recording and the state of its transcription.

    Attributes:
        language: code; None until it is detected.
    """

    def __init__(
        self,
        mel: LongMel,
        *,
        tokenizer: WhisperTokenizer,
        options: TranscriptionOptions,
        prompts: Prompts,
        limit: int,
        speech_times: SpeechTimes | None = None,
    ):
        """Begin at the beginning.

        Args:
            mel: features of all of it.
            tokenizer: of the checkpoint.
            options: what to transcribe into, and how.
            prompts: builds the prompts of windows.
            limit: most tokens of a window.
            speech_times: where the samples come from, if silence was cut out.
        """
        self._mel, self._frames = mel, len(mel.log10_RM)
        self._tokenizer, self._options, self._prompts = tokenizer, options, prompts
        self._limit, self._speech_times = limit, speech_times
        multilingual = tokenizer.special.is_multilingual
        self.language = options.language if multilingual else "en"
        self._language_probabilities: Mapping[str, float] | None = None
        self._attempts: list[WindowResult] = []
        self._tried, self._last_speech = 0.0, 0.0
        self._seek = self._first_heard = self._behind_silence(0)
        self._previous: list[int] = list(prompts.initial)
        self._segments: list[TranscribedSegment] = []
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._no_speech_prob, self._temperature = 1.0, 0.0

    @property
    def finished(self) -> bool:
        """Whether no window is left."""
        return self._seek >= self._frames

    @property
    def attempt(self) -> int:
        """How many temperatures the present window has failed at."""
        return len(self._attempts)

    def features(self) -> np.ndarray:
        """Return the features of the present window, 3000 frames."""
        return self._mel.window(self._seek, self._window_frames)

    def set_language(self, probabilities: Mapping[str, float]) -> None:
        """Take the likeliest language for the whole recording."""
        self.language = max(probabilities, key=probabilities.__getitem__)
        self._language_probabilities = probabilities

    def request(self) -> WindowRequest:
        """Return how the present window is decoded; depends on nothing but this recording and the options."""
        assert self.language is not None
        return WindowRequest(
            prompt=self._prompts.build(
                self.language, self._previous, with_prefix=self._seek == self._first_heard
            ),
            limit=self._limit,
            temperature=self._options.temperature[self.attempt],
            seed=attempt_seed(self._options, self._seek, self.attempt),
        )

    def receive(self, result: WindowResult) -> DecodedWindow | None:
        """Return a window to :meth:`accept`; None if it is to be tried again, or is silence and skipped."""
        self._tried = result.temperature
        self._temperature = max(self._temperature, self._tried)
        self._attempts.append(result)
        if failed(result, self._options, self._tokenizer):
            if self.attempt < len(self._options.temperature):
                return None
            result = best_attempt(self._attempts, self._options, self._tokenizer)
        self._attempts = []
        self._no_speech_prob = min(self._no_speech_prob, result.no_speech_prob)
        if is_silence(result, self._options):
            self._seek = self._behind_silence(self._seek + self._window_frames)
            return None
        cut = cut_window(result.tokens, self._tokenizer.special, self._window_frames)
        return DecodedWindow(
            result=result,
            cut=cut,
            segments=tuple(self._segment(segment, result) for segment in cut.segments),
            language=self.language or "en",
            frames=self._window_frames,
            offset=self._seek / FRAMES_PER_SECOND,
        )

    def accept(self, window: DecodedWindow, words: Sequence[AlignedWord] | None = None) -> None:
        """Keep what was said in a window and go on to the next.

        Args:
            window: as received.
            words: of all its text, where they are asked for: where the last one ends, the next window begins.
        """
        special, result, segments = self._tokenizer.special, window.result, window.segments
        seek = self._seek + window.cut.advance
        if words is not None:
            segments, _ = attach_words(
                segments, words, last_speech_timestamp=self._last_speech, offset=window.offset
            )
            end = _last_word_end(segments)
            self._last_speech = end
            if end > window.offset and not window.cut.heard_out:
                seek = round(end * FRAMES_PER_SECOND)
        for segment, part in zip(segments, window.cut.segments, strict=True):
            if segment.start == segment.end or not segment.text.strip():
                continue
            self._segments.append(segment)
            for token, logprob in zip(
                result.tokens[part.tokens], result.token_logprobs[part.tokens], strict=True
            ):
                if not special.is_special(token):
                    self._previous.append(token)
                    self._tokens.append(token)
                    self._logprobs.append(logprob)
        if not self._options.condition_on_prev_tokens or self._tried > LAST_TRUSTED_TEMPERATURE:
            self._previous = []
        self._seek = self._behind_silence(seek)

    def transcript(self) -> Transcript:
        """Return what was said.

        Times count from the beginning of the recording. Tokens are those of the segments: what a window said
        behind its last complete segment is said again by the next. There is one log-probability for each,
        none for ends of text, and ``avg_logprob`` is their sum over their number plus one. The recording is
        as silent as its least silent window (1 if it has none), and its temperature is the highest tried.
        """
        segments = tuple(self._segments)
        if self._speech_times is not None:
            segments = tuple(self._speech_times.restore(segment) for segment in segments)
        return Transcript(
            text="".join(segment.text for segment in segments).strip(),
            text_with_timestamps="".join(
                f"<|{segment.start:.2f}|>{segment.text}<|{segment.end:.2f}|>" for segment in segments
            ),
            tokens=self._tokens,
            token_logprobs=self._logprobs,
            avg_logprob=sum(self._logprobs) / (len(self._logprobs) + 1),
            no_speech_prob=self._no_speech_prob,
            language=self.language or "en",
            language_probabilities=self._language_probabilities,
            temperature=self._temperature,
            segments=segments,
        )

    @property
    def _window_frames(self) -> int:
        return min(CHUNK_FRAMES, self._frames - self._seek)

    def _behind_silence(self, seek: int) -> int:
        """Step over windows without a sound, if silence is to be left out at all."""
        if self._options.thresholds.no_speech is not None:
            while seek < self._frames and self._mel.loudest(seek, CHUNK_FRAMES) <= FAINTEST_LOG10:
                seek += CHUNK_FRAMES
        return seek

    def _segment(self, cut: CutSegment, result: WindowResult) -> TranscribedSegment:
        tokens = tuple(token for token in result.tokens[cut.tokens] if self._tokenizer.special.is_text(token))
        return TranscribedSegment(
            start=(self._seek + cut.start) / FRAMES_PER_SECOND,
            end=(self._seek + cut.end) / FRAMES_PER_SECOND,
            text=self._tokenizer.decode(tokens),
            tokens=tokens,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            temperature=result.temperature,
        )


def _last_word_end(segments: Sequence[TranscribedSegment]) -> float:
    """Return where the last word ends, or else the last segment."""
    ends = [word.end for segment in segments for word in segment.words or ()]
    last = ends[-1] if ends else segments[-1].end
    assert last is not None
    return last
