"""OpenAI's own code on the same weights: the reference of decoding, long recordings and word times."""

import functools
import re
from pathlib import Path

import torch
import whisper
from safetensors.torch import load_file

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.model.config import WhisperConfig

RENAMED = (
    (r"\.layers\.", ".blocks."),
    (r"\.self_attn\.(\w)_proj", r".attn.\1"),
    (r"\.self_attn\.out_proj", ".attn.out"),
    (r"\.encoder_attn\.(\w)_proj", r".cross_attn.\1"),
    (r"\.encoder_attn\.out_proj", ".cross_attn.out"),
    (r"\.self_attn_layer_norm", ".attn_ln"),
    (r"\.encoder_attn_layer_norm", ".cross_attn_ln"),
    (r"\.final_layer_norm", ".mlp_ln"),
    (r"\.fc1", ".mlp.0"),
    (r"\.fc2", ".mlp.2"),
    (r"\.attn\.(q|k|v)(?=\.)", lambda match: f".attn.{ {'q': 'query', 'k': 'key', 'v': 'value'}[match[1]] }"),
    (
        r"\.cross_attn\.(q|k|v)(?=\.)",
        lambda match: f".cross_attn.{ {'q': 'query', 'k': 'key', 'v': 'value'}[match[1]] }",
    ),
    (r"^encoder\.embed_positions\.weight", "encoder.positional_embedding"),
    (r"^decoder\.embed_positions\.weight", "decoder.positional_embedding"),
    (r"^decoder\.embed_tokens", "decoder.token_embedding"),
    (r"^encoder\.layer_norm", "encoder.ln_post"),
    (r"^decoder\.layer_norm", "decoder.ln"),
)


@functools.lru_cache(maxsize=2)
def openai_model(folder: Path, alignment_heads: tuple[tuple[int, int], ...] = ()) -> whisper.Whisper:
    """Return OpenAI's model with the weights of a Hugging Face folder, in float32.

    With ``alignment_heads`` word timestamps are read from those, otherwise from OpenAI's default.
    """
    torch.set_num_threads(2)
    config = load_checkpoint(folder, config_only=True).config
    model = whisper.Whisper(_dimensions(config))
    weights = {
        _renamed(name): tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    model.load_state_dict(weights)
    if alignment_heads:
        mask = torch.zeros(config.decoder_layers, config.decoder_attention_heads, dtype=torch.bool)
        for layer, head in alignment_heads:
            mask[layer, head] = True
        model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model.eval()


def _renamed(name: str) -> str:
    name = name.removeprefix("model.")
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _dimensions(config: WhisperConfig) -> whisper.ModelDimensions:
    return whisper.ModelDimensions(
        n_mels=config.num_mel_bins,
        n_audio_ctx=config.max_source_positions,
        n_audio_state=config.d_model,
        n_audio_head=config.encoder_attention_heads,
        n_audio_layer=config.encoder_layers,
        n_vocab=config.vocab_size,
        n_text_ctx=config.max_target_positions,
        n_text_state=config.d_model,
        n_text_head=config.decoder_attention_heads,
        n_text_layer=config.decoder_layers,
    )
