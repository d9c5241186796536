"""A decoder of random numbers with a Whisper vocabulary in small: languages, tasks, timestamps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.arrays import Params
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig
from flax_distil.text.special_tokens import SpecialTokens


@pytest.fixture(scope="session")
def special() -> SpecialTokens:
    """40 tokens of text, 10 special ones and 70 timestamps; languages in no order of ids."""
    return SpecialTokens(
        eot=40, sot=41, languages={"de": 44, "en": 42, "fr": 43}, translate=45, transcribe=46,
        sot_prev=47, no_speech=48, no_timestamps=49, timestamp_begin=50, vocab_size=120,
    )  # fmt: skip


@pytest.fixture(scope="session")
def config(special: SpecialTokens) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=special.vocab_size, num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=16, decoder_ffn_dim=24,
        max_source_positions=6, max_target_positions=19,
    )  # fmt: skip


@pytest.fixture(scope="session")
def params(config: WhisperConfig, special: SpecialTokens) -> Params:
    """Numbers large enough that tokens, positions and states all matter; end-of-text is likely."""
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), whisper_shapes(config)
    )
    tokens, positions = (params["decoder"][name] for name in ("token_embedding", "position_embedding"))
    tokens["embedding"] = 0.5 * tokens["embedding"].at[special.eot].multiply(3.0)
    positions["embedding"] *= 2.0
    return params


@pytest.fixture(scope="session")
def states(config: WhisperConfig) -> jax.Array:
    shape = (8, config.max_source_positions, config.d_model)
    return jnp.asarray(np.random.default_rng(1).normal(scale=3.0, size=shape), jnp.float32)
