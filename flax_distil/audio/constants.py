"""The audio constants of every Whisper model; none of them is a setting.

Source: Whisper (arXiv 2212.04356), section 2.2.
"""

SAMPLING_RATE = 16_000
"""Samples per second of everything after :func:`flax_distil.audio.reading.decoding.decode_audio`."""

CHUNK_SECONDS = 30
"""Length of the window that the encoder sees."""

CHUNK_SAMPLES = CHUNK_SECONDS * SAMPLING_RATE
"""480,000 samples."""

N_FFT = 400
"""Samples of one analysis frame: 25 ms."""

HOP_LENGTH = 160
"""Samples from one analysis frame to the next: 10 ms."""

CHUNK_FRAMES = CHUNK_SAMPLES // HOP_LENGTH
"""3000 mel frames in one window."""
