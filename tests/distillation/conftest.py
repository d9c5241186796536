"""A Whisper small enough to differentiate in a blink."""

import jax
import numpy as np
import pytest

from flax_distil.data.training.batches import Batch
from flax_distil.model.config import WhisperConfig
from tests.model.programs import init_params


@pytest.fixture(scope="session")
def small_config() -> WhisperConfig:
    return WhisperConfig(
        vocab_size=97, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=4,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_source_positions=20, max_target_positions=32,
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_params(small_config):
    return init_params(small_config, jax.random.key(0))


@pytest.fixture
def small_batch(small_config):
    """Two micro-batches of four samples with ragged labels, two of them prompted."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 97, (2, 4, 13))
    lengths = np.array([[12, 7, 5, 10], [3, 12, 8, 6]])[:, :, None]
    first = np.array([[0, 0, 3, 4], [0, 2, 0, 1]])[:, :, None]
    position = np.arange(12)
    return Batch(
        mel_BRM=random.normal(size=(2, 4, 40, 8)).astype(np.float32),
        decoder_input_ids_BT=tokens[:, :, :-1].astype(np.int32),
        labels_BT=tokens[:, :, 1:].astype(np.int32),
        loss_mask_BT=(position >= first) & (position < lengths),
    )
