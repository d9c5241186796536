"""Log-mel spectrogram as a pure function for the device: samples are transferred, not features.

A 30 s window is 0.48 M samples and becomes 0.24 M (80 bins) or 0.38 M (128 bins)
features, so as int16 or float32 the samples are no heavier on the way, and no host
core is spent on Fourier transforms.

The power spectrum is computed in two ways. Measured on 2 AVX2 cores, batch 8, per 30 s
clip: FFT 8 ms, matrix product 14 ms (convolution 10 ms), beside 300 ms or more for the
smallest encoder. A TPU has no FFT unit, but 0.95 GFLOP of matrix product per clip are
nothing to it, and the frames need no complex layout. ``lax.platform_dependent`` picks one
when the program is lowered, so a compile for TPU on a CPU machine gets the TPU's way.

Everything is float32: the floor lies 8 decades of power below the clip's peak, which
half precision cannot hold.
"""

from collections.abc import Callable
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import lax

from flax_distil.audio.constants import HOP_LENGTH, N_FFT, SAMPLING_RATE
from flax_distil.core.arrays import Array, Float, Int

# TPUs multiply float32 matrices in bfloat16 unless told otherwise.
EXACT = lax.Precision.HIGHEST

# The Slaney scale: linear below 1 kHz (15 mels), then 27 mels for every factor of 6.4.
BREAK_HZ = 1000.0
BREAK_MEL = 15.0
MELS_PER_LOG_HZ = 27.0 / np.log(6.4)


def as_float(samples: Float[Array, "*shape"] | Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Convert samples to float32 in [-1, 1]; int16 samples become exactly the float32 of a decoder.

    Args:
        samples: float32, or int16 where 32768 is full scale: half as heavy on the way to the device.

    Raises:
        ValueError: If they are integers of another size.
    """
    if jnp.issubdtype(samples.dtype, jnp.floating):
        return samples.astype(jnp.float32)
    if samples.dtype != jnp.int16:
        raise ValueError(f"expected float32 or int16 samples, got {samples.dtype}")
    return samples.astype(jnp.float32) / 32768.0


def log_mel(
    samples_BW: Float[Array, "B W"] | Int[Array, "B W"], *, num_mel_bins: int
) -> Float[Array, "B R M"]:
    """Compute Whisper's log-mel features; pure, so call it inside the jitted step.

    Centred frames of 25 ms every 10 ms (reflect padding, periodic Hann, the frame
    after the last hop dropped), power spectrum, Slaney mel filters, and then
    ``x = log10(max(x, 1e-10))``, ``x = max(x, max over the clip - 8)``,
    ``(x + 4) / 4``.

    Args:
        samples_BW: Samples at 16 kHz, float32 in [-1, 1] or int16, already padded: the floor
            belongs to the clip *with* its padding. Any length above 200 samples.
        num_mel_bins: 80, or 128 for large-v3 and its kin (the checkpoint's config says).

    Returns:
        float32 ``[B, R, M]`` with ``R = W // 160`` frames, time before mels as the
        encoder's convolution wants it; values span at most 2.

    Raises:
        ValueError: If there are too few samples to reflect at the edges.

    Source: Whisper (arXiv 2212.04356) section 2.2; equal to ``WhisperFeatureExtractor``.
    """
    if samples_BW.shape[-1] <= N_FFT // 2:
        raise ValueError(
            f"expected more than {N_FFT // 2} samples a clip, got {samples_BW.shape[-1]}: pad first"
        )

    context = N_FFT // 2
    padded_BW = jnp.pad(as_float(samples_BW), ((0, 0), (context, context)), mode="reflect")
    log_BRM = log10_mel(padded_BW, num_mel_bins=num_mel_bins)
    floor_B11 = jnp.max(log_BRM, axis=(1, 2), keepdims=True) - 8.0
    return (jnp.maximum(log_BRM, floor_B11) + 4.0) / 4.0


def log10_mel(padded_BW: Float[Array, "B W"], *, num_mel_bins: int) -> Float[Array, "B R M"]:
    """Compute ``log10(max(x, 1e-10))`` of samples that have 200 more on both sides.

    Args:
        padded_BW: float32 samples at 16 kHz; a frame lies around every 160th from the 200th on.
        num_mel_bins: As for :func:`log_mel`.

    Returns:
        float32 ``[B, R, M]`` with ``R = (W - 400) // 160`` frames, not yet brought to a clip's maximum.
    """

    def mel_by(power: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda padded_BW: jnp.einsum(
            "brf,fm->brm", power(_frames(padded_BW)), mel_filters(num_mel_bins), precision=EXACT
        )

    by_fft = mel_by(_power_by_fft)
    mel_BRM = lax.platform_dependent(
        padded_BW,
        # One clip after the other: a CPU keeps its frames in the cache.
        cpu=lambda padded_BW: lax.map(by_fft, padded_BW[:, None])[:, 0],
        cuda=by_fft,
        rocm=by_fft,
        default=mel_by(_power_by_matmul),
    )
    return jnp.log10(jnp.maximum(mel_BRM, 1e-10))


@lru_cache
def mel_filters(num_mel_bins: int) -> Float[np.ndarray, "F M"]:
    """Build the triangular filters of the Slaney mel scale, each of unit area in Hz.

    Args:
        num_mel_bins: Filters between 0 Hz and 8 kHz.

    Returns:
        float32 ``[201, M]`` (frequency bins by mels), read-only because it is shared.

    Source: Slaney, Auditory Toolbox (1998).
    """
    nyquist = SAMPLING_RATE / 2
    bins_F1 = np.linspace(0.0, nyquist, N_FFT // 2 + 1)[:, None]
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(nyquist), num_mel_bins + 2))
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    rising_FM = (bins_F1 - low) / (center - low)
    falling_FM = (high - bins_F1) / (high - center)
    triangles_FM = np.maximum(0.0, np.minimum(rising_FM, falling_FM))
    filters_FM = (triangles_FM * 2.0 / (high - low)).astype(np.float32)
    filters_FM.flags.writeable = False
    return filters_FM


def _hz_to_mel(hz: float) -> float:
    """Slaney mels of a frequency at or above the break."""
    return BREAK_MEL + MELS_PER_LOG_HZ * float(np.log(hz / BREAK_HZ))


def _mel_to_hz(mels: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    linear = mels * (BREAK_HZ / BREAK_MEL)
    logarithmic = BREAK_HZ * np.exp((mels - BREAK_MEL) / MELS_PER_LOG_HZ)
    return np.where(mels < BREAK_MEL, linear, logarithmic)


def _frames(padded_BW: Float[Array, "B W"]) -> Float[Array, "B R 400"]:
    """Cut frames: a frame is two and a half hops, so three shifted views make all of them."""
    batch, width = padded_BW.shape
    count = (width - N_FFT) // HOP_LENGTH
    hops = padded_BW[:, : (count + 2) * HOP_LENGTH].reshape(batch, count + 2, HOP_LENGTH)
    rest = N_FFT - 2 * HOP_LENGTH
    return jnp.concatenate([hops[:, :-2], hops[:, 1:-1], hops[:, 2:, :rest]], axis=-1)


def _hann() -> Float[np.ndarray, " 400"]:
    """Periodic Hann window, float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def _power_by_fft(frames_BRN: Float[Array, "B R 400"]) -> Float[Array, "B R 201"]:
    spectrum_BRF = jnp.fft.rfft(frames_BRN * _hann().astype(np.float32))
    return jnp.square(spectrum_BRF.real) + jnp.square(spectrum_BRF.imag)


@lru_cache
def _fourier() -> tuple[Float[np.ndarray, "400 201"], Float[np.ndarray, "400 201"]]:
    """Windowed cosine and sine matrices, computed in float64 and rounded once."""
    angle = 2 * np.pi * np.outer(np.arange(N_FFT), np.arange(N_FFT // 2 + 1)) / N_FFT
    window = _hann()[:, None]
    return (np.cos(angle) * window).astype(np.float32), (np.sin(angle) * window).astype(np.float32)


def _power_by_matmul(frames_BRN: Float[Array, "B R 400"]) -> Float[Array, "B R 201"]:
    cosine, sine = _fourier()
    real_BRF = jnp.einsum("brn,nf->brf", frames_BRN, cosine, precision=EXACT)
    imaginary_BRF = jnp.einsum("brn,nf->brf", frames_BRN, sine, precision=EXACT)
    return jnp.square(real_BRF) + jnp.square(imaginary_BRF)
