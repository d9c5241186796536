"""The decoder as one ONNX model with two branches: the first step, and the steps that have a cache.

::

    input_ids, encoder_hidden_states, past_key_values.*, use_cache_branch
        use_cache_branch false: keys and values of the encoder's output are computed, the cache is ignored
        use_cache_branch true: they are read from the cache, and returned empty, so that nothing is copied
    logits, present.*, cross_attentions.*

The branches share all weights. Names are those of ``decoder_model_merged.onnx`` of Optimum, which
Transformers.js and ``ORTModelForSpeechSeq2Seq`` load.
"""

import dataclasses

import numpy as np
import onnx
from onnx import helper

from flax_distil.exporting.onnx.graph import Graph, make_model, tensor_info
from flax_distil.exporting.onnx.layers import Attention, embed, feed_forward, layer_norm, multiply
from flax_distil.model.config import WhisperConfig

_DECODER = "model.decoder"
_TOKENS = f"{_DECODER}.embed_tokens.weight"

_Shape = tuple[int | str, ...]


def decoder_model(graph: Graph, config: WhisperConfig, *, attentions: bool) -> onnx.ModelProto:
    """Return the model of a decoder; its logits and attentions are float32 in every precision.

    Args:
        graph: An empty graph, which also collects the initializers.
        config: The architecture.
        attentions: Whether the cross-attention of each layer is returned, which word timestamps need.
    """
    dtype, outputs = graph.precision.dtype, _output_shapes(config, attentions=attentions)
    inputs = [
        tensor_info("input_ids", np.int64, ("batch_size", "decoder_sequence_length")),
        tensor_info("encoder_hidden_states", np.float32, ("batch_size", "encoder_length", config.d_model)),
        *(tensor_info(name, dtype, shape) for name, shape in _cache_shapes(config, "past").items()),
        tensor_info("use_cache_branch", np.bool_, (1,)),
    ]
    branches = {
        f"{side}_branch": _Branch(graph=graph.branch(f"{side}/"), config=config, cached=side == "then").build(
            outputs
        )
        for side in ("then", "else")
    }
    graph.nodes.append(
        helper.make_node("If", ["use_cache_branch"], list(outputs), name="use_cache", **branches)
    )
    return make_model(graph, "decoder", inputs, _described(outputs, dtype))


def _described(shapes: dict[str, _Shape], dtype: np.dtype, prefix: str = "") -> list[onnx.ValueInfoProto]:
    return [
        tensor_info(prefix + name, dtype if name.startswith("present") else np.float32, shape)
        for name, shape in shapes.items()
    ]


def _cache_shapes(config: WhisperConfig, when: str) -> dict[str, _Shape]:
    """Return the shapes of the cache before (``past``) or after (``present``) a step, by name."""
    heads = config.decoder_attention_heads
    prefix = "past_key_values" if when == "past" else "present"
    # What a cached step returns for the encoder has no rows.
    batch = {"decoder": "batch_size", "encoder": "batch_size" if when == "past" else "encoder_batch_size"}
    return {
        f"{prefix}.{layer}.{side}.{kind}": (
            batch[side],
            heads,
            f"{when}_{side}_length",
            config.d_model // heads,
        )
        for layer in range(config.decoder_layers)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    }


def _output_shapes(config: WhisperConfig, *, attentions: bool) -> dict[str, _Shape]:
    queries = ("batch_size", config.decoder_attention_heads, "decoder_sequence_length", "encoder_length")
    layers = range(config.decoder_layers if attentions else 0)
    return {
        "logits": ("batch_size", "decoder_sequence_length", config.vocab_size),
        **_cache_shapes(config, "present"),
        **{f"cross_attentions.{layer}": queries for layer in layers},
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Branch:
    """The decoder with or without a cache.

    Attributes:
        graph: The subgraph.
        config: The architecture.
        cached: Whether earlier positions are in the cache.
    """

    graph: Graph
    config: WhisperConfig
    cached: bool

    def build(self, outputs: dict[str, _Shape]) -> onnx.GraphProto:
        """Return the subgraph with these outputs, in whose names a prefix tells the branches apart."""
        graph = self.graph
        past, positions = self._positions()
        table = graph.weight(graph.weights.plain(f"{_DECODER}.embed_positions.weight"))
        x = graph.add("Add", embed(graph, "input_ids", _TOKENS), graph.add("Gather", table, positions))
        mask = self._causal_mask(past, positions)
        for index in range(self.config.decoder_layers):
            x = self._layer(x, index, mask, attentions=f"cross_attentions.{index}" in outputs)
        logits = multiply(graph, layer_norm(graph, x, f"{_DECODER}.layer_norm"), _TOKENS)
        graph.add_float32(logits, output=f"{graph.prefix}logits")
        described = _described(outputs, graph.precision.dtype, graph.prefix)
        return helper.make_graph(graph.nodes, graph.prefix.strip("/"), [], described)

    def _positions(self) -> tuple[str, str]:
        """Return the number of positions in the cache, and the positions ``[T]`` of the tokens."""
        graph = self.graph
        past = graph.integers(0)
        if self.cached:
            past = graph.add("Shape", "past_key_values.0.decoder.key", start=2, end=3)
        end = graph.add("Add", past, graph.add("Shape", "input_ids", start=1, end=2))
        first, last = (graph.add("Squeeze", value) for value in (past, end))
        return last, graph.add("Range", first, last, graph.constant(1, np.int64))

    def _causal_mask(self, length: str, positions: str) -> str:
        """Return what is added to scores ``[T, P + T]``: a token sees itself and what came before."""
        graph = self.graph
        keys = graph.add("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))
        later = graph.add("Greater", keys, graph.add("Unsqueeze", positions, graph.integers(1)))
        lowest = float(np.finfo(graph.precision.dtype).min)
        return graph.add("Where", later, graph.number(lowest), graph.number(0))

    def _layer(self, x: str, index: int, mask: str, *, attentions: bool) -> str:
        graph, layer = self.graph, f"{_DECODER}.layers.{index}"
        own, cross = (
            Attention(
                graph=graph,
                name=f"{layer}.{block}",
                heads=self.config.decoder_attention_heads,
                width=self.config.d_model,
            )
            for block in ("self_attn", "encoder_attn")
        )
        x = graph.add("Add", x, self._attend_to_tokens(own, x, index, mask))
        x = graph.add("Add", x, self._attend_to_speech(cross, x, index, attentions=attentions))
        return feed_forward(graph, x, layer)

    def _attend_to_tokens(self, attention: Attention, x: str, index: int, mask: str) -> str:
        graph = self.graph
        normed = layer_norm(graph, x, f"{attention.name}_layer_norm")
        if not self.cached:
            keys = attention.keys(normed, output=self._present(index, "decoder.key"))
            values = attention.values(normed, output=self._present(index, "decoder.value"))
            return attention.attend(normed, keys, values, mask=mask)[0]
        keys, values = (
            graph.add(
                "Concat",
                f"past_key_values.{index}.decoder.{kind}",
                project(normed),
                axis=2,
                output=self._present(index, f"decoder.{kind}"),
            )
            for kind, project in (("key", attention.keys), ("value", attention.values))
        )
        return attention.attend(normed, keys, values, mask=mask)[0]

    def _attend_to_speech(self, attention: Attention, x: str, index: int, *, attentions: bool) -> str:
        graph, dtype = self.graph, self.graph.precision.dtype
        normed = layer_norm(graph, x, f"{attention.name}_layer_norm")
        if self.cached:
            keys, values = (f"past_key_values.{index}.encoder.{kind}" for kind in ("key", "value"))
            for kind in ("key", "value"):
                empty = graph.constant(np.zeros((0, attention.heads, 1, attention.head_width)), dtype)
                graph.add("Identity", empty, output=self._present(index, f"encoder.{kind}"))
        else:
            states = graph.add("Cast", "encoder_hidden_states", to=graph.float_type)
            keys = attention.keys(states, output=self._present(index, "encoder.key"))
            values = attention.values(states, output=self._present(index, "encoder.value"))
        found, probabilities = attention.attend(normed, keys, values)
        if attentions:
            graph.add_float32(probabilities, output=f"{graph.prefix}cross_attentions.{index}")
        return found

    def _present(self, index: int, name: str) -> str:
        return f"{self.graph.prefix}present.{index}.{name}"
