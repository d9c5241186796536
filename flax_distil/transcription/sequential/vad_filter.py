"""Cuts silence out of a recording before it is transcribed, and restores the times afterwards."""

import dataclasses
import itertools
from bisect import bisect_right

import numpy as np

from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.audio.vad_regions import speech_regions
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Float
from flax_distil.transcription.results import TranscribedSegment, Word

FRAMES_PER_SECOND = 100
"""Number of feature frames per second."""

SPEECH_PAD = 0.4
"""Regions of speech are padded by this many seconds on both sides."""


@dataclasses.dataclass(frozen=True)
class SpeechTimestampsMap:
    """Maps times in the speech that was kept to times in the recording.

    Attributes:
        kept: Seconds of speech before each region.
        original: Seconds from the beginning of the recording to each region.
    """

    kept: tuple[float, ...]
    original: tuple[float, ...]

    def restore(self, segment: TranscribedSegment) -> TranscribedSegment:
        """Return a segment with times of the recording.

        Timestamps are not exact: a segment that reaches a little into the region before or behind the one
        its middle lies in, where nobody speaks yet, does not stretch over the silence between them.
        """
        segment = dataclasses.replace(segment, seek=self._frame(segment.seek))
        if segment.words:
            words = tuple(map(self._restore_word, segment.words))
            return dataclasses.replace(segment, start=words[0].start, end=words[-1].end, words=words)
        assert segment.end is not None
        region = self._region((segment.start + segment.end) / 2)
        first, last = self._region(segment.start), self._region(segment.end)
        begin, stop = self.kept[region], self.kept[last] if last > region else segment.end
        if segment.start >= begin - SPEECH_PAD:
            start = self._original(region, max(segment.start, begin))
        else:
            start = self._original(first, segment.start)
        if segment.end <= stop + SPEECH_PAD and last <= region + 1:
            end = self._original(region, min(segment.end, stop))
        else:
            end = self._original(last, segment.end)
        return dataclasses.replace(segment, start=start, end=end)

    def _restore_word(self, word: Word) -> Word:
        region = self._region((word.start + word.end) / 2)
        start, end = self._original(region, word.start), self._original(region, word.end)
        return dataclasses.replace(word, start=start, end=end)

    def _frame(self, frame: int) -> int:
        seconds = frame / FRAMES_PER_SECOND
        return round(self._original(self._region(seconds), seconds) * FRAMES_PER_SECOND)

    def _region(self, seconds: float) -> int:
        return max(0, bisect_right(self.kept, seconds) - 1)

    def _original(self, region: int, seconds: float) -> float:
        return round(self.original[region] + seconds - self.kept[region], 2)


def collect_speech(
    samples_W: Float[np.ndarray, " W"], detector: VoiceActivity
) -> tuple[Float[np.ndarray, " _"], SpeechTimestampsMap]:
    """Cut out everything that is not speech, except for pauses of up to 2 s.

    Args:
        samples_W: Mono samples at 16 kHz.
        detector: Tells speech from silence.

    Returns:
        Samples of speech, none if nobody speaks, and where they come from.
    """
    blocks = (samples_W[start : start + CHUNK_SAMPLES] for start in range(0, len(samples_W), CHUNK_SAMPLES))
    regions = speech_regions(blocks, detector)
    lengths = [region.duration_seconds for region in regions]
    times = SpeechTimestampsMap(
        kept=tuple(itertools.accumulate(lengths, initial=0.0))[:-1],
        original=tuple(region.offset_seconds for region in regions),
    )
    parts = [samples_W[region.start : region.stop] for region in regions]
    return np.concatenate([np.zeros(0, np.float32), *parts]), times
