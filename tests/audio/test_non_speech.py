"""Generated sounds without speech: each is what its name says, and the same in every run."""

import hashlib

import numpy as np
import pytest

from flax_distil.audio.non_speech.clips import (
    KINDS,
    LEVELS_DBFS,
    NonSpeechClip,
    at_level,
    root_mean_square,
)


def clip_of(kind: str, *, seconds: float = 4.0, seed: int = 0) -> NonSpeechClip:
    level = None if kind == "silence" else -20.0
    return NonSpeechClip(seed=seed, number=KINDS.index(kind), seconds=seconds, level_dbfs=level)


def power_by_octave(samples_W) -> np.ndarray:
    """Return the power in dB of the octaves from 125 Hz to 4 kHz."""
    power_F = np.abs(np.fft.rfft(samples_W)) ** 2
    hertz_F = np.fft.rfftfreq(len(samples_W), 1 / 16_000)
    octaves = [(hertz_F >= low) & (hertz_F < 2 * low) for low in (125, 250, 500, 1000, 2000)]
    return 10 * np.log10([power_F[octave].sum() for octave in octaves])


def test_kinds_take_turns_and_lengths_and_levels_are_spread():
    clips = [NonSpeechClip.of(0, number) for number in range(400)]
    assert [clip.kind for clip in clips[:8]] == list(KINDS)
    seconds = np.array([clip.seconds for clip in clips])
    assert (seconds.min(), seconds.max()) == (pytest.approx(1.0, abs=0.1), pytest.approx(30.0, abs=1.0))
    assert 4.0 < np.median(seconds) < 7.0
    np.testing.assert_allclose(seconds * 50, np.round(seconds * 50), atol=1e-9)
    levels = [clip.level_dbfs for clip in clips if clip.level_dbfs is not None]
    assert len(levels) == 350
    assert LEVELS_DBFS[0] <= min(levels) < -55
    assert -17 < max(levels) <= LEVELS_DBFS[1]


def test_clips_fit_the_window_of_a_student():
    assert max(NonSpeechClip.of(0, number, longest_seconds=5.0).seconds for number in range(200)) <= 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_follows_from_seed_and_number_alone(kind):
    first, again, other = clip_of(kind), clip_of(kind), clip_of(kind, seed=1)
    samples_W = first.samples()
    assert samples_W.dtype == np.float32
    assert len(samples_W) == 64_000
    assert np.isfinite(samples_W).all()
    assert np.abs(samples_W).max() <= 1.0
    assert hashlib.sha256(samples_W).digest() == hashlib.sha256(again.samples()).digest()
    if kind != "silence":
        assert np.abs(samples_W - other.samples()).max() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("silence", "clicks")])
def test_sounds_have_their_level(kind):
    assert 20 * np.log10(root_mean_square(clip_of(kind).samples())) == pytest.approx(-20, abs=0.1)


def test_silence_is_digital():
    assert not clip_of("silence").samples().any()


def test_a_level_that_would_clip_is_lowered():
    sound_W = np.zeros(16_000)
    sound_W[100] = 1.0
    assert np.abs(at_level(sound_W, -12.0)).max() == 1.0
    assert not at_level(np.zeros(10), -12.0).any()


@pytest.mark.parametrize(("color", "slope"), [("white", 3.0), ("pink", 0.0), ("brown", -3.0)])
def test_noise_has_its_color(color, slope):
    """The power of an octave grows by 3 dB for white noise, stays for pink and falls for brown noise."""
    steps = np.diff(power_by_octave(clip_of(color, seconds=30.0).samples()))
    np.testing.assert_allclose(steps, slope, atol=0.8)


def test_hum_lies_at_the_harmonics_of_the_mains():
    power_F = np.abs(np.fft.rfft(clip_of("hum", seconds=10.0).samples())) ** 2
    loudest = np.argmax(power_F[: 10 * 130]) / 10
    assert min(abs(loudest - mains * n) for mains in (50, 60) for n in (1, 2)) < 0.5


def test_clicks_are_short():
    samples_W = np.abs(clip_of("clicks").samples())
    assert np.mean(samples_W < 0.01 * samples_W.max()) > 0.5


def test_music_has_notes_and_a_crowd_has_none_that_last():
    """Shares of power in the strongest 1 % of frequencies, over half a second."""

    def peakiness(kind):
        windows_NX = clip_of(kind, seconds=8.0).samples().reshape(16, -1)
        power_NF = np.sort(np.abs(np.fft.rfft(windows_NX * np.hanning(windows_NX.shape[1]))) ** 2)
        return np.median(power_NF[:, -40:].sum(axis=1) / power_NF.sum(axis=1))

    assert peakiness("music") > 0.7 > peakiness("crowd") > peakiness("white")
