"""Log-mel features: equal to transformers' extractor, whichever way the spectrum is computed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from flax_distil.audio import mel
from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.constants import CHUNK_FRAMES, CHUNK_SAMPLES
from flax_distil.audio.mel import log_mel, mel_filters
from flax_distil.audio.reading.decoding import decode_audio

PROMPTS = Path(__file__).parents[2] / "examples" / "asterisk_prompts"
# float32 on both sides: single bins right at the floor differ by some 5e-5, all others by far less.
TOLERANCE = 1e-4

jitted_log_mel = jax.jit(log_mel, static_argnames="num_mel_bins")


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Speech, faint speech, silence, loud white noise, a square wave, a pure tone over faint hiss."""
    rng = np.random.default_rng(0)
    seconds = np.arange(CHUNK_SAMPLES) / 16_000
    speech = pad_or_trim(decode_audio(max(PROMPTS.glob("*/*.ogg"), key=lambda path: path.stat().st_size)))
    tone = 0.99 * np.sin(2 * np.pi * 440 * seconds)
    hiss = 1e-5 * rng.normal(size=CHUNK_SAMPLES)
    noise = rng.uniform(-1, 1, CHUNK_SAMPLES)
    return np.stack([speech, 1e-3 * speech, 0 * seconds, noise, np.sign(tone), tone + hiss]).astype(
        np.float32
    )


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_log_mel_equals_the_feature_extractor_of_transformers(clips: np.ndarray, num_mel_bins: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    expected_BMR = extractor(list(clips), sampling_rate=16_000, return_tensors="np").input_features
    mel_BRM = jitted_log_mel(clips, num_mel_bins=num_mel_bins)
    assert mel_BRM.dtype == jnp.float32
    assert mel_BRM.shape == (len(clips), CHUNK_FRAMES, num_mel_bins)
    np.testing.assert_allclose(mel_BRM, expected_BMR.transpose(0, 2, 1), rtol=0, atol=TOLERANCE)


def test_the_way_for_tpu_gives_the_same_features(clips: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    by_fft = jax.jit(lambda samples: log_mel(samples, num_mel_bins=80))(clips)
    monkeypatch.setattr(mel, "_power_by_fft", mel._power_by_matmul)
    by_matmul = jax.jit(lambda samples: log_mel(samples, num_mel_bins=80))(clips)
    np.testing.assert_allclose(by_matmul, by_fft, rtol=0, atol=TOLERANCE)


def test_a_lowering_for_tpu_holds_no_fft_and_one_for_cpu_does() -> None:
    samples = jax.ShapeDtypeStruct((1, CHUNK_SAMPLES), jnp.float32)
    traced = jitted_log_mel.trace(samples, num_mel_bins=80)
    assert "fft" not in traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "fft" in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_sixteen_bit_samples_give_the_features_of_their_recording_to_the_bit(clips: np.ndarray) -> None:
    integers = np.clip(np.round(clips * 32768), -32768, 32767).astype(np.int16)
    read_back = integers.astype(np.float32) / 32768  # what decoders make of a 16-bit file
    np.testing.assert_array_equal(
        jitted_log_mel(integers, num_mel_bins=80), jitted_log_mel(read_back, num_mel_bins=80)
    )
    with pytest.raises(ValueError, match="float32 or int16 samples, got int32"):
        log_mel(jnp.zeros((1, 400), jnp.int32), num_mel_bins=80)


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_mel_filters_equal_those_of_transformers(num_mel_bins: int) -> None:
    expected = WhisperFeatureExtractor(feature_size=num_mel_bins).mel_filters
    np.testing.assert_allclose(mel_filters(num_mel_bins), expected, rtol=0, atol=1e-8)


def test_mel_filters_are_shared_and_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(80)[0, 0] = 1.0


@pytest.mark.parametrize("width", [201, 16_000, 16_159, 160_001])
def test_any_length_gives_one_frame_for_every_whole_hop(clips: np.ndarray, width: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=80)
    samples = clips[3:4, :width]
    expected_BMR = extractor(
        list(samples), sampling_rate=16_000, padding=False, truncation=False, return_tensors="np"
    ).input_features
    mel_BRM = log_mel(jnp.asarray(samples), num_mel_bins=80)
    assert mel_BRM.shape[1] == width // 160
    np.testing.assert_allclose(mel_BRM, expected_BMR.transpose(0, 2, 1), rtol=0, atol=TOLERANCE)


def test_clips_of_a_batch_do_not_touch_each_other(clips: np.ndarray) -> None:
    together = jitted_log_mel(clips, num_mel_bins=80)
    alone = jitted_log_mel(clips[:1], num_mel_bins=80)
    # Not bit-equal: the compiler may order the sums of another shape differently.
    np.testing.assert_allclose(together[:1], alone, rtol=0, atol=TOLERANCE)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 200"):
        log_mel(jnp.zeros((1, 200)), num_mel_bins=80)
