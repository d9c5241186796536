"""Pack the speech of a recording into windows: long silences are left out, cuts lie in pauses."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.speech_runs import (
    FRAMES_PER_SECOND,
    Run,
    Segment,
    find_runs,
    find_windows,
    pad_runs,
    smooth_levels,
)
from flax_distil.audio.vad_config import VadOptions
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Bool, Float

_LEAST_FILL = 2 / 3
"""A window that is at least so full ends in the longest pause that follows, even if more speech would fit."""


@dataclasses.dataclass(frozen=True)
class SpeechWindow:
    """A window of speech.

    Attributes:
        parts: Stretches of the recording that follow each other in the window, in order, without overlap.
    """

    parts: tuple[Segment, ...]

    def samples(self, samples_W: Float[np.ndarray, " W"]) -> Float[np.ndarray, " _"]:
        """Return the samples of the window, given those of the recording."""
        return np.concatenate([samples_W[part.start : part.stop] for part in self.parts])

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return sum(part.duration_seconds for part in self.parts)

    def behind(self, seconds: float) -> "SpeechWindow":
        """Return what follows a time of the window; one without parts if nothing does."""
        skipped, parts = round(seconds * SAMPLING_RATE), []
        for part in self.parts:
            length = part.stop - part.start
            if skipped < length:
                parts.append(dataclasses.replace(part, start=part.start + max(0, skipped)))
            skipped -= length
        return SpeechWindow(tuple(parts))


def speech_windows(
    blocks: Iterable[Float[np.ndarray, " _"]], detector: VoiceActivity, *, longest_seconds: float
) -> list[SpeechWindow]:
    """Find where somebody speaks, and pack that into windows.

    Args:
        blocks: Mono samples at 16 kHz, in pieces of any size.
        detector: Tells speech from silence; its options say what counts as either.
        longest_seconds: Maximum length of a window.

    Returns:
        Windows in the order of the recording; none where nobody speaks.
    """
    longest = int(longest_seconds * FRAMES_PER_SECOND)
    choose = functools.partial(pack_frames, options=detector.options, longest=longest)
    return [SpeechWindow(tuple(parts)) for parts in find_windows(blocks, detector, choose)]


def pack_frames(
    speech_F: Bool[np.ndarray, " frames"],
    levels_F: Float[np.ndarray, " frames"],
    options: VadOptions,
    *,
    longest: int,
) -> list[list[Run]]:
    """Pack frames of speech into windows.

    A silence of more than ``min_silence_duration_ms`` is left out; shorter ones stay. Windows end in the
    longest pause of their last third. A stretch of speech that is longer than a window is cut where it is
    quietest.

    Args:
        speech_F: Which frames hold speech.
        levels_F: How loud they are, in dB.
        options: What counts as speech, and how much around it is kept.
        longest: Maximum number of frames of a window.

    Returns:
        For each window its parts: the first frame of each, and the frame after its last.
    """
    smooth_F = smooth_levels(levels_F)
    padding, shortest, silence = (
        round(milliseconds * FRAMES_PER_SECOND / 1000)
        for milliseconds in (
            options.speech_pad_ms,
            options.min_speech_duration_ms,
            options.min_silence_duration_ms,
        )
    )
    if options.max_speech_duration_s is not None:
        longest = min(longest, int(options.max_speech_duration_s * FRAMES_PER_SECOND))
    padding = min(padding, longest // 4)
    runs = [
        piece
        for start, stop in find_runs(speech_F)
        if stop - start >= max(1, shortest)
        for piece in _cut_where_quietest(start, stop, smooth_F, longest - 2 * padding)
    ]
    padded = pad_runs(runs, smooth_F, frames=len(speech_F), padding=padding)
    pauses = [after[0] - before[1] for before, after in itertools.pairwise(runs)]
    windows, first = [], 0
    while first < len(runs):
        last = _last_run(padded, pauses, first, longest=longest, silence=silence)
        windows.append(_join(padded, pauses, range(first, last + 1), silence=silence))
        first = last + 1
    return windows


def _last_run(padded: Sequence[Run], pauses: Sequence[int], first: int, *, longest: int, silence: int) -> int:
    """Return the run that a window ends with: the one before the longest pause, once it is full enough."""
    best, best_pause = first, -1.0
    length = 0
    for last in range(first, len(padded)):
        joins = last > first and pauses[last - 1] <= silence
        length += padded[last][1] - (padded[last - 1][1] if joins else padded[last][0])
        if length > longest:
            break
        pause = pauses[last] if last < len(pauses) else math.inf
        if length < _LEAST_FILL * longest:
            best = last
        elif pause >= best_pause:
            best, best_pause = last, pause
    return best


def _join(padded: Sequence[Run], pauses: Sequence[int], chosen: range, *, silence: int) -> list[Run]:
    """Return the parts of a window: runs with short pauses between them become one."""
    parts: list[Run] = []
    for index in chosen:
        if parts and pauses[index - 1] <= silence:
            parts[-1] = (parts[-1][0], padded[index][1])
        else:
            parts.append(padded[index])
    return parts


def _cut_where_quietest(
    start: int, stop: int, smooth_F: Float[np.ndarray, " frames"], longest: int
) -> Iterator[Run]:
    """Cut a run of speech that is too long at the quietest frame of the last third of each window."""
    begin = start
    while stop - begin > longest:
        earliest = begin + max(1, int(_LEAST_FILL * longest))
        cut = earliest + int(np.argmin(smooth_F[earliest : begin + longest]))
        yield begin, cut
        begin = cut
    yield begin, stop
