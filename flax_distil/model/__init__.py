"""Whisper in Flax NNX: configuration, encoder, decoder and its cache."""

from flax_distil.model.assembly import (
    Whisper,
    bind_decoder,
    bind_encoder,
    decoding_shapes,
    decoding_weights,
    init_params,
    is_for_decoding,
    whisper_shapes,
)
from flax_distil.model.attention import dot_product_attention
from flax_distil.model.cache import DecoderCache
from flax_distil.model.config import PRESETS, WhisperConfig
from flax_distil.model.decoder import Decoder, DecoderLayer
from flax_distil.model.encoder import Encoder
from flax_distil.model.layers import CHECKPOINT_POLICIES, ComputeOptions
from flax_distil.model.projections import project_onto_tokens

__all__ = [
    "CHECKPOINT_POLICIES",
    "PRESETS",
    "ComputeOptions",
    "Decoder",
    "DecoderCache",
    "DecoderLayer",
    "Encoder",
    "Whisper",
    "WhisperConfig",
    "bind_decoder",
    "bind_encoder",
    "decoding_shapes",
    "decoding_weights",
    "dot_product_attention",
    "init_params",
    "is_for_decoding",
    "project_onto_tokens",
    "whisper_shapes",
]
