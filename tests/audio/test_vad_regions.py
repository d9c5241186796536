"""Regions of speech follow the options of voice activity; frames last 32 ms."""

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.segmentation import LONG_SILENCE, PADDING, segment_frames
from flax_distil.audio.vad_config import VadOptions
from flax_distil.audio.vad_regions import region_frames
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError

NO_PADDING = {"speech_pad_ms": 0, "min_speech_duration_ms": 0}


def frames(total, *runs):
    speech_F = np.zeros(total, bool)
    for start, stop in runs:
        speech_F[start:stop] = True
    return speech_F, np.where(speech_F, -20.0, -60.0)


def regions(*runs, total=2000, **options):
    return region_frames(*frames(total, *runs), VadOptions(**options))


def test_a_silence_that_is_longer_than_asked_ends_speech():
    runs = (100, 200), (231, 300), (400, 500)
    assert regions(*runs, **NO_PADDING, min_silence_duration_ms=1000) == [(100, 300), (400, 500)]
    assert regions(*runs, **NO_PADDING, min_silence_duration_ms=960) == list(runs)
    assert regions(*runs, **NO_PADDING) == [(100, 300), (400, 500)]
    assert regions(*runs, **NO_PADDING, min_silence_duration_ms=4000) == [(100, 500)]


def test_speech_that_is_shorter_than_asked_is_none():
    assert regions((100, 110), (400, 420), speech_pad_ms=0) == [(100, 110), (400, 420)]
    assert regions((100, 110), (400, 420), speech_pad_ms=0, min_speech_duration_ms=400) == [(400, 420)]
    assert regions((100, 110), min_speech_duration_ms=400) == []


def test_padding_reaches_into_the_silence_but_not_into_the_neighbor():
    wide = {"min_speech_duration_ms": 0, "min_silence_duration_ms": 0, "speech_pad_ms": 3200}
    assert regions((150, 200), **wide) == [(50, 300)]
    assert regions((20, 40), total=60, **wide) == [(0, 60)]
    (_, end), (start, _) = regions((150, 200), (240, 300), **wide)
    assert 200 < end == start < 240


def test_speech_that_is_longer_than_asked_is_cut_in_its_longest_pause():
    runs = (0, 75), (79, 90), (100, 190)
    assert regions(*runs, **NO_PADDING, max_speech_duration_s=3.2) == [(0, 90), (100, 190)]
    speech_F, levels_F = frames(200, (0, 180))
    levels_F[88] = -50.0
    cut = region_frames(speech_F, levels_F, VadOptions(**NO_PADDING, max_speech_duration_s=3.2))
    assert [stop - start for start, stop in cut] == [cut[0][1], 180 - cut[0][1]]
    assert 85 <= cut[0][1] <= 91


def test_by_default_regions_are_segments_joined_over_pauses_of_two_seconds():
    draw = np.random.default_rng(0)
    for _ in range(200):
        total = int(draw.integers(1, 4000))
        edges = np.sort(draw.integers(0, total, 40)).tolist()
        speech_F, levels_F = frames(total, *zip(edges[::2], edges[1::2], strict=True))
        joined: list[tuple[int, int]] = []
        for start, stop in segment_frames(speech_F, levels_F):
            if joined and start - joined[-1][1] + 2 * PADDING <= LONG_SILENCE:
                joined[-1] = joined[-1][0], stop
            else:
                joined.append((start, stop))
        assert region_frames(speech_F, levels_F, VadOptions()) == joined


def test_thresholds_are_those_of_the_peers_and_belong_to_silero():
    assert (VadOptions().starts, VadOptions().ends) == (0.5, 0.35)
    assert VadOptions(threshold=0.8).ends == pytest.approx(0.65)
    assert VadOptions(threshold=0.1).ends == 0.01
    assert VadOptions(threshold=0.3, neg_threshold=0.2).ends == 0.2
    with pytest.raises(InputError, match="threshold and neg_threshold are probabilities of Silero's network"):
        VoiceActivity("energy", VadOptions(threshold=0.6))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 1.5}, "threshold 1.5 of voice activity is not between 0 and 1"),
        (
            {"threshold": 0.3, "neg_threshold": 0.4},
            "neg_threshold 0.4 of voice activity is above threshold 0.3",
        ),
        ({"speech_pad_ms": -1}, "speech_pad_ms -1 is not a number of at least 0"),
        ({"max_speech_duration_s": 0.5}, "max_speech_duration_s 0.5 is below 1"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        VadOptions(**options)


def test_a_higher_threshold_hears_less_speech(prompts_dir):
    speech = decode_audio(prompts_dir / "validation" / "agent-user.ogg")
    heard = [
        VoiceActivity("silero", VadOptions(threshold=threshold))([speech])[0].sum()
        for threshold in (0.02, 0.5, 0.995)
    ]
    assert heard[0] > heard[1] > heard[2]
