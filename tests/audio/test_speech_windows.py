"""Speech packed into windows: nothing is lost or heard twice, silences go, and cuts lie in pauses."""

import itertools

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.speech_runs import FRAMES_PER_SECOND, Segment
from flax_distil.audio.speech_windows import SpeechWindow, pack_frames
from flax_distil.audio.vad_config import VadOptions

LONGEST = int(30 * FRAMES_PER_SECOND)


def frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)


def pack(*lengths: float, options: VadOptions | None = None) -> list[list[tuple[int, int]]]:
    """Pack stretches of speech and silence in turn, given in seconds, speech first."""
    speech = np.concatenate([np.full(frames(seconds), not turn % 2) for turn, seconds in enumerate(lengths)])
    levels = np.where(speech, -20.0, -60.0)
    return pack_frames(speech, levels, options or VadOptions(), longest=LONGEST)


@pytest.mark.parametrize("seed", range(20))
def test_all_speech_is_in_one_window_each_in_order(seed):
    draw = np.random.default_rng(seed)
    lengths = draw.gamma(1.0, [4.0, 1.0] * 40)
    speech = np.concatenate([np.full(frames(s), not turn % 2) for turn, s in enumerate(lengths)])
    levels = draw.normal(np.where(speech, -20.0, -60.0), 5.0)
    windows = pack_frames(speech, levels, VadOptions(min_speech_duration_ms=0), longest=LONGEST)
    parts = [part for window in windows for part in window]
    assert all(sum(stop - start for start, stop in window) <= LONGEST for window in windows)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(parts))
    held = np.zeros(len(speech), bool)
    for start, stop in parts:
        held[start:stop] = True
    assert held[speech].all()
    assert held.sum() < speech.sum() + frames(2.0) * len(lengths)


def test_windows_are_filled_across_long_silences_which_are_left_out():
    [window, other] = pack(8.0, 20.0, 8.0, 20.0, 8.0, 20.0, 8.0)
    assert [round((stop - start) / FRAMES_PER_SECOND, 1) for start, stop in window] == [8.4, 8.8, 8.8]
    assert len(other) == 1


def test_short_pauses_stay():
    [[part]] = pack(8.0, 1.5, 8.0, 1.0, 2.0)
    assert part == (0, pytest.approx(frames(20.5), abs=2))


def test_a_window_ends_in_the_longest_pause_of_its_last_third():
    [window, other] = pack(10.0, 0.2, 12.0, 0.8, 4.0, 0.3, 10.0)
    assert window[0][1] == pytest.approx(frames(22.6), abs=2)
    assert 0 <= other[0][0] - window[0][1] <= 1


def test_a_loud_stretch_of_more_than_a_window_is_cut_where_it_is_quietest():
    speech, levels = np.ones(frames(50.0), bool), np.full(frames(50.0), -20.0)
    levels[frames(25.0) : frames(25.3)] = -35.0
    windows = pack_frames(speech, levels, VadOptions(), longest=LONGEST)
    assert len(windows) == 2
    assert frames(25.0) <= windows[0][0][1] <= frames(25.3)


def test_nobody_speaks():
    assert pack(0.05, 30.0) == []
    assert pack_frames(np.zeros(0, bool), np.zeros(0), VadOptions(), longest=LONGEST) == []


def test_what_is_behind_a_time_of_a_window():
    window = SpeechWindow((Segment(start=0, stop=SAMPLING_RATE), Segment(start=80_000, stop=112_000)))
    assert window.seconds == 3.0
    assert window.behind(0.5).parts == (
        Segment(start=8000, stop=SAMPLING_RATE), Segment(start=80_000, stop=112_000)
    )  # fmt: skip
    assert window.behind(1.0).parts == (Segment(start=80_000, stop=112_000),)
    assert window.behind(2.5).parts == (Segment(start=104_000, stop=112_000),)
    assert window.behind(3.0).parts == ()
    samples = np.arange(120_000, dtype=np.float32)
    np.testing.assert_array_equal(window.behind(2.5).samples(samples), samples[104_000:112_000])
