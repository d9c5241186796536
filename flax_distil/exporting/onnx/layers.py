"""The layers of Whisper as ONNX nodes.

Activations are ``[B, T, D]``: batch, positions, width. Queries, keys and values are ``[B, N, T, H]``: batch,
heads, positions, features of a head.

Source: ``modeling_whisper.py`` of transformers.
"""

import dataclasses
import math

from flax_distil.exporting.onnx.graph import Graph
from flax_distil.exporting.onnx.initializers import LEVELS, ZERO_POINT

_EPSILON = 1e-5

_LEAST = 1e-9
"""Largest value of a position that is taken to be zero when it is quantized."""


def linear(graph: Graph, x: str, name: str, *, bias: bool = True) -> str:
    """Return ``x @ weight + bias`` of the linear layer with a name in the checkpoint."""
    product = multiply(graph, x, f"{name}.weight")
    return graph.add("Add", product, graph.weight(graph.weights.plain(f"{name}.bias"))) if bias else product


def multiply(graph: Graph, x: str, weight: str) -> str:
    """Return ``x`` times the transpose of a matrix of the checkpoint.

    With quantized weights, ``x`` is quantized to unsigned bytes too, with a scale for each position, and
    products are added in 32 bits. Positions differ so much that one scale for all of them, which
    ``DynamicQuantizeLinear`` would make, doubles the error of the encoder; and a row would depend on the
    others of its batch.
    """
    if not graph.precision.quantized:
        return graph.add("MatMul", x, graph.weight(graph.weights.matrix(weight)))
    matrix, scale = map(graph.weight, graph.weights.quantized_matrix(weight))
    largest = graph.add("ReduceMax", graph.add("Abs", x), axes=(-1,), keepdims=1)
    x_scale = graph.add("Div", graph.add("Max", largest, graph.number(_LEAST)), graph.number(LEVELS))
    zero = graph.constant(ZERO_POINT, "uint8")
    x_bytes = graph.add("QuantizeLinear", graph.add("Div", x, x_scale), graph.number(1), zero)
    sums = graph.add("MatMulInteger", x_bytes, matrix, zero, zero)
    floats = graph.add("Cast", sums, to=graph.float_type)
    return graph.add("Mul", graph.add("Mul", floats, scale), x_scale)


def embed(graph: Graph, tokens: str, name: str) -> str:
    """Return rows ``[B, T, D]`` of a table ``[V, D]`` of the checkpoint.

    The table is stored as ``[D, V]``, since the output projection multiplies with it.
    """
    if not graph.precision.quantized:
        table = graph.weight(graph.weights.matrix(name))
        return graph.add("Transpose", graph.add("Gather", table, tokens, axis=1), perm=(1, 2, 0))
    table, scale = map(graph.weight, graph.weights.quantized_matrix(name))
    columns = graph.add("Cast", graph.add("Gather", table, tokens, axis=1), to=graph.float_type)
    steps = graph.add("Sub", columns, graph.number(ZERO_POINT))
    return graph.add("Transpose", graph.add("Mul", steps, graph.add("Gather", scale, tokens)), perm=(1, 2, 0))


def layer_norm(graph: Graph, x: str, name: str) -> str:
    """Return the layer norm with a name in the checkpoint."""
    scale, bias = (graph.weight(graph.weights.plain(f"{name}.{part}")) for part in ("weight", "bias"))
    return graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=_EPSILON)


def gelu(graph: Graph, x: str) -> str:
    """Return the exact GELU, ``x / 2 (1 + erf(x / sqrt 2))``, in the form that ONNX Runtime fuses."""
    erf = graph.add("Erf", graph.add("Div", x, graph.number(math.sqrt(2))))
    doubled = graph.add("Mul", x, graph.add("Add", erf, graph.number(1)))
    return graph.add("Mul", doubled, graph.number(0.5))


def feed_forward(graph: Graph, x: str, layer: str) -> str:
    """Return ``x`` plus the feed-forward block of a layer."""
    inner = gelu(graph, linear(graph, layer_norm(graph, x, f"{layer}.final_layer_norm"), f"{layer}.fc1"))
    return graph.add("Add", x, linear(graph, inner, f"{layer}.fc2"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """One attention block of a layer, whose tensors have a common name.

    Attributes:
        graph: Where the nodes go.
        name: Name of the block in the checkpoint, such as ``model.decoder.layers.0.self_attn``.
        heads: Number of heads.
        width: Number of features of all heads together.
    """

    graph: Graph
    name: str
    heads: int
    width: int

    @property
    def head_width(self) -> int:
        """Number of features of a head."""
        return self.width // self.heads

    def keys(self, x: str, *, output: str | None = None) -> str:
        """Return the keys ``[B, N, T, H]`` of activations."""
        return self._split(linear(self.graph, x, f"{self.name}.k_proj", bias=False), output)

    def values(self, x: str, *, output: str | None = None) -> str:
        """Return the values ``[B, N, T, H]`` of activations."""
        return self._split(linear(self.graph, x, f"{self.name}.v_proj"), output)

    def attend(self, x: str, keys: str, values: str, *, mask: str | None = None) -> tuple[str, str]:
        """Return the output of the block ``[B, T, D]`` and the attention probabilities ``[B, N, T, S]``.

        Args:
            x: Activations of the queries.
            keys: Keys of all positions.
            values: Values of all positions.
            mask: What is added to the scores, ``[T, S]``.
        """
        graph = self.graph
        scaled = graph.add(
            "Mul", linear(graph, x, f"{self.name}.q_proj"), graph.number(self.head_width**-0.5)
        )
        scores = graph.add("MatMul", self._split(scaled), graph.add("Transpose", keys, perm=(0, 1, 3, 2)))
        if mask is not None:
            scores = graph.add("Add", scores, mask)
        probabilities = graph.add("Softmax", scores, axis=-1)
        found = graph.add("Transpose", graph.add("MatMul", probabilities, values), perm=(0, 2, 1, 3))
        merged = graph.add("Reshape", found, graph.integers(0, 0, self.width))
        return linear(graph, merged, f"{self.name}.out_proj"), probabilities

    def _split(self, x: str, output: str | None = None) -> str:
        shape = self.graph.integers(0, 0, self.heads, self.head_width)
        heads = self.graph.add("Reshape", x, shape)
        return self.graph.add("Transpose", heads, perm=(0, 2, 1, 3), output=output)
