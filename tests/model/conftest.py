"""A Whisper small enough to run many times."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.model.config import WhisperConfig
from tests.model.programs import compiled, decoding, encoding, init_params


@pytest.fixture(scope="session")
def config() -> WhisperConfig:
    return WhisperConfig(
        vocab_size=53, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=40,
        max_source_positions=20, max_target_positions=24,
    )  # fmt: skip


@pytest.fixture(scope="session")
def params(config):
    """Random parameters; larger than at initialisation, so that attention is not uniform."""
    return jax.tree.map(
        lambda leaf: 5.0 * leaf if leaf.ndim > 2 else leaf,
        compiled(functools.partial(init_params, config))(jax.random.key(0)),
    )


@pytest.fixture(scope="session")
def mel(config) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 40, config.num_mel_bins)), jnp.float32)


@pytest.fixture(scope="session")
def tokens(config) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, config.vocab_size, (3, 12)), jnp.int32)


@pytest.fixture(scope="session")
def states(config, params, mel):
    return encoding(config)(params, mel)


@pytest.fixture(scope="session")
def logits(config, params, tokens, states):
    return decoding(config)(params, tokens, states)
