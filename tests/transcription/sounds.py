"""Recordings in which nobody speaks; all are made here, none is recorded."""

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE

CHORDS_HZ = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (130.8, 164.8, 196.0), (196.0, 246.9, 293.7))
MELODY_STEPS = (0, 2, 3, 5, 7, 10)


def white_noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).normal(size=round(seconds * SAMPLING_RATE))).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLING_RATE), np.float32)


def music(seconds: int) -> np.ndarray:
    """Chords, one a second, under a plucked melody of two notes a second, with overtones that die away."""
    random = np.random.default_rng(0)

    def note(hertz: float, length: float, decay: float, overtones: int) -> np.ndarray:
        time = np.arange(round(length * SAMPLING_RATE)) / SAMPLING_RATE
        waves = sum(np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, overtones + 1))
        return waves * np.exp(-decay * time)

    bars = []
    for second in range(seconds):
        chord = sum(note(hertz, 1.0, 2.0, 4) for hertz in CHORDS_HZ[second // 2 % 4])
        steps = random.choice(MELODY_STEPS, size=2)
        melody = np.concatenate([note(440 * 2 ** (step / 12), 0.5, 5.0, 3) for step in steps])
        bars.append(chord + 1.6 * melody)
    wave = np.concatenate(bars)
    return (0.6 * wave / np.abs(wave).max()).astype(np.float32)
