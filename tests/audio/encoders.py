"""Recordings written in any container and codec, whole and damaged."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

PROMPTS = Path(__file__).parents[2] / "examples" / "asterisk_prompts"
RATE = 16_000
Case = tuple[str, str | None, int, int]
"""libsndfile's names of container and codec, samples per second, channels."""


def written(speech: np.ndarray, case: Case) -> bytes:
    """Encode with libsndfile; every channel holds the speech, at half the level in odd ones."""
    container, codec, rate, channels = case
    samples = soxr.resample(speech, RATE, rate, quality="VHQ")
    levels = np.where(np.arange(channels) % 2, 0.5, 1.0).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples[:, None] * levels, rate, format=container, subtype=codec)
    return buffer.getvalue()


def muxed(speech: np.ndarray, container: str, codec: str, layout: str = "mono") -> bytes:
    """Encode with FFmpeg's libraries at 16 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout=layout)
        resampler = av.AudioResampler(stream.format.name, layout, RATE, frame_size=stream.frame_size or 960)
        samples = np.stack([speech] * stream.channels)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(part))
    return buffer.getvalue()


def damaged(encoded: bytes, size: int = 3000, place: float = 0.5) -> bytes:
    """Overwrite bytes with noise, as a broken disk or transfer does."""
    start = int(len(encoded) * place)
    noise = np.random.default_rng(0).bytes(size)
    return encoded[:start] + noise + encoded[start + size :]


def delay(decoded: np.ndarray, original: np.ndarray) -> int:
    """Samples by which ``decoded`` lags behind ``original`` (peak of the cross-correlation)."""
    size = 1 << (len(decoded) + len(original)).bit_length()
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < size // 2 else peak - size
