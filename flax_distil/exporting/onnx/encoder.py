"""The encoder as an ONNX model: log-mel features to hidden states."""

import numpy as np
import onnx

from flax_distil.exporting.onnx.graph import Graph, make_model, tensor_info
from flax_distil.exporting.onnx.layers import Attention, feed_forward, gelu, layer_norm
from flax_distil.model.config import WhisperConfig

_ENCODER = "model.encoder"


def encoder_model(graph: Graph, config: WhisperConfig) -> onnx.ModelProto:
    """Return the model of an encoder, whose input and output are float32 in every precision.

    ::

        input_features [batch_size, mel bins, 2 S]  ->  last_hidden_state [batch_size, S, D]

    Args:
        graph: An empty graph, which also collects the initializers.
        config: The architecture.
    """
    x = graph.add("Cast", "input_features", to=graph.float_type)
    for name, stride in (("conv1", 1), ("conv2", 2)):
        x = gelu(graph, _convolution(graph, x, f"{_ENCODER}.{name}", stride))
    positions = graph.weight(graph.weights.plain(f"{_ENCODER}.embed_positions.weight"))
    x = graph.add("Add", graph.add("Transpose", x, perm=(0, 2, 1)), positions)
    for index in range(config.encoder_layers):
        x = _layer(graph, x, f"{_ENCODER}.layers.{index}", config)
    x = layer_norm(graph, x, f"{_ENCODER}.layer_norm")
    graph.add_float32(x, output="last_hidden_state")
    frames = 2 * config.max_source_positions
    features = tensor_info("input_features", np.float32, ("batch_size", config.num_mel_bins, frames))
    states = ("batch_size", config.max_source_positions, config.d_model)
    return make_model(graph, "encoder", [features], [tensor_info("last_hidden_state", np.float32, states)])


def _convolution(graph: Graph, x: str, name: str, stride: int) -> str:
    kernel, bias = (graph.weight(graph.weights.plain(f"{name}.{part}")) for part in ("weight", "bias"))
    return graph.add("Conv", x, kernel, bias, kernel_shape=(3,), pads=(1, 1), strides=(stride,))


def _layer(graph: Graph, x: str, layer: str, config: WhisperConfig) -> str:
    attention = Attention(
        graph=graph,
        name=f"{layer}.self_attn",
        heads=config.encoder_attention_heads,
        width=config.d_model,
    )
    normed = layer_norm(graph, x, f"{layer}.self_attn_layer_norm")
    found, _ = attention.attend(normed, attention.keys(normed), attention.values(normed))
    return feed_forward(graph, graph.add("Add", x, found), layer)
