"""Features of long recordings, block by block: those of OpenAI's code over the whole recording."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
import torch
import whisper

from flax_distil.audio.constants import CHUNK_FRAMES, CHUNK_SAMPLES, HOP_LENGTH
from flax_distil.audio.long_mel import LongMel, long_log_mel
from flax_distil.audio.mel import log10_mel
from tests.long_recording import long_recording

TOLERANCE = 1e-4  # as for windows of 30 s: see test_mel.py

program = jax.jit(log10_mel, static_argnames="num_mel_bins")


def features(samples: np.ndarray, *, rows: int = 1, num_mel_bins: int = 80) -> LongMel:
    def start(blocks: np.ndarray) -> Callable[[], np.ndarray]:
        logs = program(blocks, num_mel_bins=num_mel_bins)
        return lambda: np.asarray(logs)

    return long_log_mel(samples, start, rows=rows, num_mel_bins=num_mel_bins)


def openai_windows(samples: np.ndarray, starts: list[int], num_mel_bins: int = 80) -> list[np.ndarray]:
    """Windows as OpenAI's loop cuts them out."""
    mel = whisper.log_mel_spectrogram(samples, num_mel_bins, padding=CHUNK_SAMPLES)
    end = mel.shape[-1] - CHUNK_FRAMES
    cut = [mel[:, start : min(start + CHUNK_FRAMES, end)] for start in starts]
    return [whisper.pad_or_trim(torch.clone(window), CHUNK_FRAMES).numpy().T for window in cut]


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (1_120_000, [0, 17, 2999, 3001, 5000, 6999]),
        (2 * CHUNK_SAMPLES, [0, 4000]),
        (
            2 * CHUNK_SAMPLES + 1,
            [3000, 5999],
        ),  # the sample behind the last whole block counts for the maximum
        (CHUNK_SAMPLES + 159, [0, 2999]),
        (1_600, [0]),
        (161, [0]),
    ],
)
def test_every_window_is_that_of_openais_code(samples: int, starts: list[int]) -> None:
    recording = np.resize(long_recording(70)[0], samples)
    recording[-1] = 1.0  # a click: the loudest frames may lie behind the last whole hop
    mel = features(recording)
    assert len(mel.log10_RM) == samples // HOP_LENGTH
    for start, expected in zip(starts, openai_windows(recording, starts), strict=True):
        window = mel.window(start, min(CHUNK_FRAMES, len(mel.log10_RM) - start))
        np.testing.assert_allclose(window, expected, rtol=0, atol=TOLERANCE)


def test_128_bins_and_batches_of_blocks_give_the_same() -> None:
    recording = long_recording(70)[0][:1_100_000]
    together = features(recording, rows=2, num_mel_bins=128)
    [expected] = openai_windows(recording, [3500], 128)
    np.testing.assert_allclose(together.window(3500, 3000), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("samples", [0, 159])
def test_what_is_shorter_than_a_hop_has_no_frames(samples: int) -> None:
    assert features(np.ones(samples, np.float32)).log10_RM.shape == (0, 80)


def test_silence_lies_at_the_floor() -> None:
    mel = features(np.zeros(16_000, np.float32))
    assert mel.peak == mel.loudest(0, 100) == -10
    np.testing.assert_allclose(mel.window(0, 100)[:100], -1.5)
