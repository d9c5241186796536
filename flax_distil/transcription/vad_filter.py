"""Silence is cut out of a recording before it is transcribed, and put back into the times afterwards."""

import dataclasses
from bisect import bisect_left, bisect_right

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, VoiceActivity, speech_regions
from flax_distil.core import Float
from flax_distil.transcription.results import TranscribedSegment, Word


@dataclasses.dataclass(frozen=True)
class SpeechTimes:
    """Where the samples that were kept come from.

    Attributes:
        kept: seconds of speech before each region.
        original: seconds from the beginning of the recording to each region.
    """

    kept: tuple[float, ...]
    original: tuple[float, ...]

    def time(self, seconds: float, *, is_end: bool = False) -> float:
        """Return a time of the recording; between two regions an end belongs to the first of them."""
        find = bisect_left if is_end else bisect_right
        return self._from_region(max(0, find(self.kept, seconds) - 1), seconds)

    def restore(self, segment: TranscribedSegment) -> TranscribedSegment:
        """Return a segment with times of the recording; a word lies where its middle does."""
        words = None if segment.words is None else tuple(map(self._restore_word, segment.words))
        if words:
            return dataclasses.replace(segment, start=words[0].start, end=words[-1].end, words=words)
        end = None if segment.end is None else self.time(segment.end, is_end=True)
        return dataclasses.replace(segment, start=self.time(segment.start), end=end, words=words)

    def _restore_word(self, word: Word) -> Word:
        region = max(0, bisect_right(self.kept, (word.start + word.end) / 2) - 1)
        return dataclasses.replace(
            word, start=self._from_region(region, word.start), end=self._from_region(region, word.end)
        )

    def _from_region(self, region: int, seconds: float) -> float:
        return round(self.original[region] + seconds - self.kept[region], 2)


def keep_speech(
    samples_W: Float[np.ndarray, " W"], detector: VoiceActivity
) -> tuple[Float[np.ndarray, " _"], SpeechTimes]:
    """Cut everything out that is no speech, but for pauses of up to 2 s.

    Args:
        samples_W: mono samples at 16 kHz.
        detector: tells speech from silence.

    Returns:
        Samples of speech, none if nobody speaks, and where they come from.
    """
    blocks = (samples_W[start : start + CHUNK_SAMPLES] for start in range(0, len(samples_W), CHUNK_SAMPLES))
    regions = speech_regions(blocks, detector)
    lengths = [region.duration_seconds for region in regions]
    times = SpeechTimes(
        kept=tuple(sum(lengths[:region]) for region in range(len(regions))),
        original=tuple(region.offset_seconds for region in regions),
    )
    parts = [samples_W[region.start : region.stop] for region in regions]
    return np.concatenate([np.zeros(0, np.float32), *parts]), times
