"""Instrumental music from a generator: chords, a bass, a melody and drums, without a voice."""

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float, Int

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
"""Semitones of a major and of a minor scale."""

_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 0), (1, 4, 0, 5))
"""Steps of the scale on which the four chords of a phrase are built."""

_BEATS_PER_CHORD = 4

_HARMONICS = 8

_ATTACK_SECONDS = 0.01


def make_music(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return music of any scale, in a key, a tempo and instruments of its own."""
    scale, progression = random.choice(_SCALES), random.choice(_PROGRESSIONS)
    key, beat = int(random.integers(45, 57)), 60.0 / random.uniform(70.0, 150.0)
    chords, bass, melody = (_Instrument(random) for _ in range(3))
    sound_W = np.zeros(length + 4 * SAMPLING_RATE)
    has_drums = random.random() < 0.6
    for number in range(int(length / SAMPLING_RATE / beat) + 1):
        start, step = number * beat, int(progression[number // _BEATS_PER_CHORD % 4])
        if number % _BEATS_PER_CHORD == 0:
            for third in (0, 2, 4):
                chords.play(sound_W, start, 4 * beat, _pitch(key, scale, step + third), 0.4)
        if number % 2 == 0:
            bass.play(sound_W, start, 2 * beat, _pitch(key - 12, scale, step), 0.8)
        for half in range(int(random.integers(3))):
            note = _pitch(key + 12, scale, step + int(random.integers(7)))
            melody.play(sound_W, start + half * beat / 2, beat, note, random.uniform(0.3, 0.8))
        if has_drums:
            _drum(sound_W, start, random, is_low=number % 2 == 0)
    return sound_W[:length]


class _Instrument:
    """Plays notes with a spectrum and a decay of its own."""

    def __init__(self, random: np.random.Generator):
        steepness = random.uniform(0.7, 2.5)
        self._amplitudes_H = random.uniform(0.3, 1.0, _HARMONICS) * np.arange(1, _HARMONICS + 1) ** -steepness
        self._decay, self._vibrato = random.uniform(0.5, 6.0), random.choice([0.0, random.uniform(0.0, 0.01)])

    def play(
        self, sound_W: Float[np.ndarray, " _"], start: float, seconds: float, hertz: float, loudness: float
    ) -> None:
        """Add a note to a sound."""
        first = round(start * SAMPLING_RATE)
        time_N = np.arange(min(round(seconds * SAMPLING_RATE), len(sound_W) - first)) / SAMPLING_RATE
        phase_N = 2.0 * np.pi * hertz * time_N + self._vibrato * hertz / 6.0 * np.sin(12.0 * np.pi * time_N)
        note_N = np.zeros(len(time_N))
        for number, amplitude in enumerate(self._amplitudes_H, start=1):
            if number * hertz < SAMPLING_RATE / 2:
                note_N += amplitude * np.sin(number * phase_N)
        attack_N = np.minimum(time_N / _ATTACK_SECONDS, 1.0)
        release_N = np.clip((seconds - time_N) / (5.0 * _ATTACK_SECONDS), 0.0, 1.0)
        sound_W[first : first + len(time_N)] += (
            loudness * note_N * attack_N * release_N * np.exp(-self._decay * time_N)
        )


def _pitch(key: int, scale: Int[np.ndarray, " _"], step: int) -> float:
    """Return the frequency in Hz of a step of a scale above a key, which is a MIDI number."""
    octave, degree = divmod(step, len(scale))
    return float(440.0 * 2.0 ** ((key + 12 * octave + scale[degree] - 69) / 12.0))


def _drum(
    sound_W: Float[np.ndarray, " _"], start: float, random: np.random.Generator, *, is_low: bool
) -> None:
    """Add a drum, whose pitch falls, or a short hiss."""
    first, time_N = round(start * SAMPLING_RATE), np.arange(SAMPLING_RATE // 5) / SAMPLING_RATE
    if is_low:
        beat_N = np.sin(2.0 * np.pi * 45.0 * (time_N + 0.04 * (1.0 - np.exp(-30.0 * time_N))))
        beat_N *= np.exp(-15.0 * time_N)
    else:
        beat_N = 0.4 * random.standard_normal(len(time_N)) * np.exp(-40.0 * time_N)
    sound_W[first : first + len(time_N)] += beat_N
