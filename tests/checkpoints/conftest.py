"""A small random model in the shape of every file the room reads and writes."""

import jax
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig


@pytest.fixture(scope="session")
def small_config() -> WhisperConfig:
    """Every size differs from the others, so that no two axes can be mistaken for each other."""
    return WhisperConfig(
        vocab_size=51864,
        num_mel_bins=80,
        d_model=24,
        encoder_layers=3,
        decoder_layers=5,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=56,
        max_source_positions=20,
        max_target_positions=14,
    )


@pytest.fixture(scope="session")
def small_checkpoint(small_config: WhisperConfig, tiny_en_dir) -> Checkpoint:
    """A random model with the tokenizer and the settings of tiny.en.

    Its weights are multiples of 1/16 below 8, so float16 and bfloat16 hold them exactly.
    """
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jax.numpy.asarray(np.round(16 * generator.normal(size=leaf.shape)) / 16, leaf.dtype),
        whisper_shapes(small_config),
    )
    files = load_checkpoint(tiny_en_dir, config_only=True).files
    return Checkpoint(config=small_config, params=params, files=files)
