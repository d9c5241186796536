"""Names of the tensors of Whisper in openai/whisper, which whisper.cpp has too, beside those of Hugging Face.

The tensors have the same shapes on both sides.

Source: ``whisper/model.py`` of openai/whisper.
"""

from collections.abc import Mapping

_TABLES: Mapping[str, str] = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
}
"""Tensors with a name of their own, without the leading ``model.`` of Hugging Face."""

_MODULES: Mapping[str, str] = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
}
_LAYER_MODULES: Mapping[str, str] = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}

_TABLES_BACK = {theirs: ours for ours, theirs in _TABLES.items()}
_MODULES_BACK = {theirs: ours for ours, theirs in _MODULES.items()}
_LAYER_MODULES_BACK = {theirs: ours for ours, theirs in _LAYER_MODULES.items()}


def to_openai(name: str) -> str:
    """Return the name in openai/whisper of a Hugging Face tensor, such as ``model.decoder.layer_norm.bias``.

    Raises:
        KeyError: If Whisper has no such tensor.
    """
    short = name.removeprefix("model.")
    if short in _TABLES:
        return _TABLES[short]
    module, _, leaf = short.rpartition(".")
    side, kind, layer, inner = _split(module)
    if kind == "layers":
        return f"{side}.blocks.{layer}.{_LAYER_MODULES[inner]}.{leaf}"
    return f"{_MODULES[module]}.{leaf}"


def to_huggingface(name: str) -> str:
    """Return the Hugging Face name of a tensor of openai/whisper; other names are returned unchanged."""
    if name in _TABLES_BACK:
        return f"model.{_TABLES_BACK[name]}"
    module, _, leaf = name.rpartition(".")
    side, kind, layer, inner = _split(module)
    if kind == "blocks" and inner in _LAYER_MODULES_BACK:
        return f"model.{side}.layers.{layer}.{_LAYER_MODULES_BACK[inner]}.{leaf}"
    if module in _MODULES_BACK:
        return f"model.{_MODULES_BACK[module]}.{leaf}"
    return name


def _split(module: str) -> tuple[str, str, str, str]:
    """Split ``encoder.layers.0.self_attn.q_proj`` into side, kind, layer and the rest, empty where absent."""
    side, _, rest = module.partition(".")
    kind, _, rest = rest.partition(".")
    layer, _, inner = rest.partition(".")
    return side, kind, layer, inner
