"""A recording in windows of packed speech, and the transcript that they become."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from flax_distil.audio.speech_windows import SpeechWindow
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import TranscribedSegment, Transcript, segments_transcript
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap

REST_SECONDS = 1.5
"""Speech of this length behind the last timestamp of a window is decoded in a window of its own."""


class PackedRecording:
    """A recording whose windows are transcribed among those of other recordings.

    Attributes:
        windows: Where the windows lie, in order.
        language: Code of the language of all windows; None where each has its own.
    """

    def __init__(
        self,
        windows: Sequence[SpeechWindow],
        *,
        seconds: float,
        language: str | None,
        language_probabilities: Mapping[str, float] | None = None,
    ):
        """Begin with windows that are not transcribed yet.

        Args:
            windows: Where the windows lie.
            seconds: Length of the recording; no time is later.
            language: See the class.
            language_probabilities: Probability of each language, where it was detected.
        """
        self.windows, self.language = list(windows), language
        self._seconds, self._probabilities = seconds, language_probabilities
        self._transcripts: dict[SpeechWindow, Transcript] = {}
        self._segments: list[TranscribedSegment] = []
        self._placed = 0
        self._text_end = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether every window has its transcript."""
        return len(self._transcripts) == len(self.windows)

    def add(self, window: SpeechWindow, transcript: Transcript) -> SpeechWindow | None:
        """Add the transcript of a window.

        Returns:
            What is left of the window, as a new one of this recording: a model may end its text before the
            speech ends. None if the text has no timestamps, or nothing is left.
        """
        self._transcripts[window] = transcript
        end = transcript.segments[-1].end if transcript.segments else None
        if not end or window.seconds - end < REST_SECONDS:
            return None
        rest = window.behind(end)
        self.windows.insert(self.windows.index(window) + 1, rest)
        return rest

    def take_segments(self) -> Sequence[TranscribedSegment]:
        """Return the segments, with times of the recording, up to the first window without a transcript."""
        begun = len(self._segments)
        while self._placed < len(self.windows) and self.windows[self._placed] in self._transcripts:
            window = self.windows[self._placed]
            self._segments += self._place(window, self._transcripts[window])
            self._placed += 1
        return self._segments[begun:]

    def _place(self, window: SpeechWindow, transcript: Transcript) -> Sequence[TranscribedSegment]:
        lengths = [part.duration_seconds for part in window.parts]
        speech_map = SpeechTimestampsMap(
            kept=tuple(itertools.accumulate(lengths, initial=0.0))[:-1],
            original=tuple(part.offset_seconds for part in window.parts),
        )
        placed = keep_within(
            [speech_map.restore(segment) for segment in _segments(transcript, window.seconds)],
            begin=self._text_end,
            end=self._seconds,
        )
        if placed:
            self._text_end = placed[-1].end or self._text_end
        return placed

    def transcript(self) -> Transcript:
        """Return the transcript of the recording.

        Its tokens are those of all windows one after the other. ``avg_logprob`` is the mean over them and
        the ends of text; the recording is as silent as its least silent window, and its temperature is the
        highest tried.
        """
        self.take_segments()
        windows = [self._transcripts[window] for window in self.windows]
        joined = segments_transcript(
            self._segments,
            ends_of_text=0,
            no_speech_prob=min((window.no_speech_prob for window in windows), default=1.0),
            language=self.language or (windows[0].language if windows else "en"),
            language_probabilities=self._probabilities
            or (windows[0].language_probabilities if windows else None),
            temperature=max((window.temperature for window in windows), default=0.0),
        )
        tokens = [token for window in windows for token in window.tokens]
        total = sum(window.avg_logprob * (len(window.tokens) + 1) for window in windows)
        return dataclasses.replace(
            joined,
            tokens=tokens,
            token_logprobs=[logprob for window in windows for logprob in window.token_logprobs],
            avg_logprob=total / (len(tokens) + len(windows)) if windows else 0.0,
        )


def _segments(transcript: Transcript, seconds: float) -> list[TranscribedSegment]:
    """Return the segments of a window, all with an end; without timestamps its text is one segment."""
    if not transcript.segments and transcript.text:
        text = TranscribedSegment(
            start=0.0, end=seconds, text=f" {transcript.text}", tokens=tuple(transcript.tokens),
            avg_logprob=transcript.avg_logprob, no_speech_prob=transcript.no_speech_prob,
            temperature=transcript.temperature,
        )  # fmt: skip
        return [text]
    return [
        segment if segment.end is not None else dataclasses.replace(segment, end=max(segment.start, seconds))
        for segment in transcript.segments
    ]
