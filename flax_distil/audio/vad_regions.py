"""Where in a recording somebody speaks, in stretches of any length: what a voice activity filter keeps."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from flax_distil.audio.segmentation import FRAMES_PER_SECOND, Run, Segment, quietest, runs_of, smoothed
from flax_distil.audio.voice_activity import FRAME_SAMPLES, VadOptions, VoiceActivity
from flax_distil.core.arrays import Bool, Float


def speech_regions(blocks: Iterable[Float[np.ndarray, " _"]], detector: VoiceActivity) -> list[Segment]:
    """Find where somebody speaks.

    Args:
        blocks: Mono samples at 16 kHz, in pieces of any size.
        detector: Tells speech from silence; its options say what counts as either.

    Returns:
        Parts of the recording, in order, without overlap.
    """
    samples = 0

    def counted() -> Iterator[Float[np.ndarray, " _"]]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    regions = region_frames(*detector(counted()), detector.options)
    return [
        Segment(start=start * FRAME_SAMPLES, stop=min(stop * FRAME_SAMPLES, samples))
        for start, stop in regions
    ]


def region_frames(
    speech_F: Bool[np.ndarray, " frames"], levels_F: Float[np.ndarray, " frames"], options: VadOptions
) -> list[Run]:
    """Return the first frame of each region and the frame behind its last.

    Args:
        speech_F: Which frames hold speech.
        levels_F: How loud they are, in dB.
        options: What counts as speech, and how much around it is kept.
    """
    smooth_F = smoothed(levels_F)
    runs = [run for run in runs_of(speech_F) if run[1] - run[0] >= _frames(options.min_speech_duration_ms)]
    groups: list[list[Run]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] <= _frames(options.min_silence_duration_ms):
            groups[-1].append(run)
        else:
            groups.append([run])
    regions = [piece for group in groups for piece in _cut(group, smooth_F, options.max_speech_duration_s)]
    return _padded(regions, smooth_F, len(speech_F), _frames(options.speech_pad_ms))


def _frames(milliseconds: int | float) -> int:
    return round(milliseconds * FRAMES_PER_SECOND / 1000)


def _cut(
    runs: list[Run], smooth_F: Float[np.ndarray, " frames"], max_seconds: int | float | None
) -> Iterator[Run]:
    """Cut a region that is too long in the longest pause of its last third, or else where it is faintest."""
    begin, stop = runs[0][0], runs[-1][1]
    longest = stop - begin if max_seconds is None else int(max_seconds * FRAMES_PER_SECOND)
    pauses = [(before[1], after[0]) for before, after in itertools.pairwise(runs)]
    while stop - begin > longest:
        earliest, latest = begin + max(1, 2 * longest // 3), begin + longest
        within = [pause for pause in pauses if earliest <= pause[0] <= latest]
        if within:
            end, following = max(within, key=lambda pause: pause[1] - pause[0])
        else:
            end = following = earliest + int(np.argmin(smooth_F[earliest:latest]))
        yield begin, end
        begin = following
    yield begin, stop


def _padded(
    regions: list[Run], smooth_F: Float[np.ndarray, " frames"], frames: int, padding: int
) -> list[Run]:
    """Add to both ends of regions; neighbours meet where it is quietest between them."""
    if not regions:
        return []
    meeting = [quietest(before[1], after[0], smooth_F) for before, after in itertools.pairwise(regions)]
    return [
        (max(start - padding, low), min(stop + padding, high))
        for (start, stop), low, high in zip(regions, [0, *meeting], [*meeting, frames], strict=True)
    ]
