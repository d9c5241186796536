"""The murmur of a crowd: many voices that utter random sounds at the same time, and no word.

A voice is a train of pulses with a pitch that wanders, or breath, filtered by the resonances of a random
vowel for every syllable (the source-filter model of speech). The sounds follow no language, so there is
nothing to recognize; several voices and the echo of a room blur them further.
"""

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float, Int

_VOICES = (5, 9)
"""Lowest and highest number of voices, the higher one included."""

_SYLLABLE_SECONDS = (0.08, 0.22)

_FORMANTS_HERTZ = ((250.0, 850.0), (800.0, 2400.0), (2200.0, 3200.0))
"""Lowest and highest frequency of the three resonances of a vowel."""

_BANDWIDTHS_HERTZ = (90.0, 130.0, 200.0)

_SIZE = 4096
"""Samples of the Fourier transform of a syllable, which are more than those of the longest one."""

_PAUSED, _UNVOICED = 0.25, 0.2
"""Shares of syllables that are pauses, and that are breath."""


def make_crowd(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return the murmur of some voices in a room, of any scale."""
    sound_W = np.zeros(length)
    for _ in range(int(random.integers(_VOICES[0], _VOICES[1] + 1))):
        sound_W += random.uniform(0.3, 1.0) * _voice(length, random)
    return _in_room(sound_W, random)


def _voice(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return one voice from the beginning to the end."""
    count = int(length / SAMPLING_RATE / _SYLLABLE_SECONDS[0]) + 2
    lengths_N = np.round(random.uniform(*_SYLLABLE_SECONDS, count) * SAMPLING_RATE).astype(int)
    starts_N = np.cumsum(lengths_N) - lengths_N
    used = int(np.searchsorted(starts_N, length))
    lengths_N, starts_N = lengths_N[:used], starts_N[:used]
    pulses_W = _pulses(int(starts_N[-1] + lengths_N[-1]), starts_N, random)
    syllables_NX = np.zeros((used, _SIZE))
    is_breath_N = random.random(used) < _UNVOICED
    for syllable_X, start, size, is_breath in zip(
        syllables_NX, starts_N, lengths_N, is_breath_N, strict=True
    ):
        source_X = 0.3 * random.standard_normal(size) if is_breath else pulses_W[start : start + size]
        syllable_X[:size] = source_X * np.sin(np.pi * np.arange(size) / size)
    filtered_NX = np.fft.irfft(np.fft.rfft(syllables_NX) * _resonances(used, random), n=_SIZE)
    loudness_N = np.where(random.random(used) < _PAUSED, 0.0, random.uniform(0.3, 1.0, used))
    sound_W = np.zeros(length + 2 * _SIZE)
    for syllable_X, start, loudness in zip(filtered_NX, starts_N, loudness_N, strict=True):
        sound_W[start : start + _SIZE] += loudness * syllable_X
    return sound_W[:length]


def _pulses(
    length: int, starts_N: Int[np.ndarray, " N"], random: np.random.Generator
) -> Float[np.ndarray, " W"]:
    """Return the pulses of a voice: one wherever its phase passes a whole number."""
    pitch = random.uniform(80.0, 260.0) * 2.0 ** random.uniform(-0.3, 0.3, len(starts_N))
    hertz_W = np.interp(np.arange(length), starts_N, pitch)
    phase_W = np.floor(np.cumsum(hertz_W / SAMPLING_RATE))
    return np.diff(phase_W, prepend=0.0)


def _resonances(count: int, random: np.random.Generator) -> Float[np.ndarray, "N F"]:
    """Return the gain of the vocal tract at each frequency for some random sounds."""
    hertz_F = np.fft.rfftfreq(_SIZE, 1.0 / SAMPLING_RATE)
    gain_NF = np.zeros((count, len(hertz_F)))
    for number, (between, width) in enumerate(zip(_FORMANTS_HERTZ, _BANDWIDTHS_HERTZ, strict=True)):
        center_N1 = random.uniform(*between, (count, 1))
        gain_NF += 2.0**-number / (1.0 + ((hertz_F - center_N1) / width) ** 2)
    return gain_NF


def _in_room(sound_W: Float[np.ndarray, " W"], random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Add the echo of a room: decaying noise as its response."""
    seconds = random.uniform(0.2, 0.8)
    time_N = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    response_N = random.standard_normal(len(time_N)) * np.exp(-6.9 / seconds * time_N)
    response_N[0] = np.sqrt(len(time_N)) * random.uniform(0.05, 0.3)
    size = len(sound_W) + len(response_N)
    echoed_W = np.fft.irfft(np.fft.rfft(sound_W, n=size) * np.fft.rfft(response_N, n=size), n=size)
    return echoed_W[: len(sound_W)]
