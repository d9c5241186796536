"""Build ONNX graphs node by node: each operator returns the name of its output."""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from flax_distil.exporting.onnx.initializers import Initializer, WeightStore, constant
from flax_distil.exporting.onnx.precision import Precision

_OPSET = 17
"""The first version with layer normalization; all runtimes of the last years have it."""

_IR_VERSION = 8  # that of this operator set


class Graph:
    """The nodes of one graph, or of one branch in it, and the initializers that all branches share.

    Attributes:
        weights: What makes initializers of the checkpoint's tensors.
        nodes: The nodes, in the order of computation.
        initializers: Stored tensors by name.
        prefix: What the names of its values begin with.
    """

    def __init__(self, weights: WeightStore, *, prefix: str = "", parent: "Graph | None" = None):
        """Begin a graph; the values of a branch are named with ``prefix``, to be unlike those of others."""
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Initializer] = {} if parent is None else parent.initializers
        self.prefix = prefix
        self._results: dict[tuple[Any, ...], str] = {}

    @property
    def precision(self) -> Precision:
        """How numbers are stored and computed."""
        return self.weights.precision

    @property
    def float_type(self) -> int:
        """The ONNX code of the floating-point type."""
        return int(helper.np_dtype_to_tensor_dtype(self.precision.dtype))

    def branch(self, prefix: str) -> "Graph":
        """Begin a subgraph that shares the initializers."""
        return Graph(self.weights, prefix=prefix, parent=self)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output, which is ``output`` if given.

        A node that is there already is not added again, so that layers which read the same activations
        quantize them once.
        """
        key = (operator, inputs, output, repr(sorted(attributes.items())))
        if key not in self._results:
            node = f"{self.prefix}{operator}_{len(self.nodes)}"
            name = output or f"{node}_output_0"
            self.nodes.append(helper.make_node(operator, inputs, [name], name=node, **attributes))
            self._results[key] = name
        return self._results[key]

    def add_float32(self, value: str, *, output: str) -> str:
        """Give a value of the graph's floating-point type a name as float32."""
        return self.add("Cast", value, to=onnx.TensorProto.FLOAT, output=output)

    def constant(self, values: Any, dtype: Any) -> str:
        """Return the name of a small stored array; the same values are stored once."""
        array = np.asarray(values, dtype)
        name = f"constant_{array.dtype.name}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        return self.weight(constant(name, array))

    def integers(self, *values: int) -> str:
        """Return the name of a stored vector of int64, such as a shape."""
        return self.constant(values, np.int64)

    def number(self, value: float | int) -> str:
        """Return the name of a stored scalar of the graph's floating-point type."""
        return self.constant(value, self.precision.dtype)

    def weight(self, initializer: Initializer) -> str:
        """Store an initializer, unless it is stored, and return its name."""
        return self.initializers.setdefault(initializer.name, initializer).name


def tensor_info(name: str, dtype: np.dtype | type, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    """Describe an input or output; axes whose size varies have names."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def make_model(
    graph: Graph, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """Return the model of a graph, without the values of its initializers."""
    return helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="flax-distil",
    )
