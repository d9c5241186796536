"""Sounds without any pitch or rhythm of speech: noise by its color, mains hum, clicks, digital silence.

Every function takes a number of samples at 16 kHz and random numbers, and returns a sound of any scale.
"""

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.arrays import Float

_LOWEST_HERTZ = 20.0
"""Colored noise does not get louder below this frequency, which nobody hears."""

_MAINS_HERTZ = (50.0, 60.0)

_HARMONICS = 20

_CLICK_SECONDS = 0.03


def silence(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return digital silence."""
    return np.zeros(length)


def white_noise(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return noise of the same power in every band of equal width."""
    return random.standard_normal(length)


def pink_noise(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return noise whose power falls by 3 dB per octave."""
    return _colored_noise(length, random, exponent=1.0)


def brown_noise(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return noise whose power falls by 6 dB per octave."""
    return _colored_noise(length, random, exponent=2.0)


def make_hum(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return the hum of a mains of 50 or 60 Hz, with harmonics and a little hiss."""
    time_W = np.arange(length) / SAMPLING_RATE
    mains = float(random.choice(_MAINS_HERTZ)) * (1.0 + random.uniform(-0.002, 0.002))
    steepness, phases = random.uniform(0.5, 2.0), random.uniform(0.0, 2.0 * np.pi, _HARMONICS)
    sound_W = random.uniform(0.001, 0.05) * random.standard_normal(length)
    for number, phase in enumerate(phases, start=1):
        amplitude = random.uniform(0.2, 1.0) * number**-steepness
        sound_W += amplitude * np.sin(2.0 * np.pi * mains * number * time_W + phase)
    return sound_W


def make_clicks(length: int, random: np.random.Generator) -> Float[np.ndarray, " W"]:
    """Return clicks and knocks at random times, each ringing for some milliseconds; at least one."""
    count = max(1, int(random.poisson(random.uniform(0.5, 6.0) * length / SAMPLING_RATE)))
    time_N = np.arange(round(_CLICK_SECONDS * SAMPLING_RATE)) / SAMPLING_RATE
    sound_W = np.zeros(length + len(time_N))
    for start in random.integers(length, size=count):
        pitch, decay = random.uniform(200.0, 6000.0), random.uniform(150.0, 2000.0)
        ringing_N = np.exp(-decay * time_N) * np.cos(2.0 * np.pi * pitch * time_N)
        sound_W[start : start + len(time_N)] += random.uniform(0.2, 1.0) * ringing_N
    return sound_W[:length]


def _colored_noise(length: int, random: np.random.Generator, *, exponent: float) -> Float[np.ndarray, " W"]:
    """Return Gaussian noise whose power falls with this power of the frequency."""
    spectrum_F = np.fft.rfft(random.standard_normal(length))
    hertz_F = np.maximum(np.fft.rfftfreq(length, 1.0 / SAMPLING_RATE), _LOWEST_HERTZ)
    return np.fft.irfft(spectrum_F * hertz_F ** (-exponent / 2.0), n=length)
