"""Write ONNX files tensor by tensor, so that an export never holds a whole file in memory.

``onnx.save`` needs all values in memory. The format itself, nested protocol buffer messages that begin with
their lengths, only needs the shapes first. A message cannot exceed 2 GiB: the weights of larger models go
into files beside it.

Source: ``onnx.proto`` and ``ExternalData.md`` of onnx; the encoding of protocol buffers.
"""

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import helper

from flax_distil.exporting.onnx.initializers import Initializer

MAX_FILE_SIZE = 2_000_000_000
"""Number of bytes above which weights go into files beside the model; no such file is larger, either."""

_ALIGNMENT = 4096  # bytes; weights that begin at a page can be mapped into memory
_SMALLEST_EXTERNAL = 1024  # bytes; smaller tensors, such as shapes, stay in the model

_MODEL_GRAPH = b"\x3a"  # ModelProto.graph = 7
_GRAPH_INITIALIZER = b"\x2a"  # GraphProto.initializer = 5
_TENSOR_RAW_DATA = b"\x4a"  # TensorProto.raw_data = 9


def write_model(path: Path, model: onnx.ModelProto, initializers: Collection[Initializer]) -> int:
    """Write a model and its weights.

    Args:
        path: The file to write; files of weights are beside it, named ``…_data``, ``…_data_1`` and so on.
        model: The model without initializers.
        initializers: What its graph stores.

    Returns:
        The number of files of weights beside the model.
    """
    size = sum(one.byte_count for one in initializers)
    smallest = 0 if size <= MAX_FILE_SIZE else _SMALLEST_EXTERNAL
    inside = [one for one in initializers if not smallest or one.byte_count < smallest]
    files = _divided([one for one in initializers if smallest and one.byte_count >= smallest])
    tensors = []
    for number, group in enumerate(files):
        data = path.with_name(f"{path.name}_data" + (f"_{number}" if number else ""))
        tensors += _write_data(data, group)
    with path.open("wb") as file:
        _write_message(file, model, tensors, inside)
        _flush(file)
    return len(files)


def _divided(initializers: list[Initializer]) -> list[list[Initializer]]:
    """Divide initializers, in their order, into groups whose files are not too large."""
    groups: list[list[Initializer]] = []
    filled = 0
    for one in initializers:
        if not groups or filled + one.byte_count > MAX_FILE_SIZE:
            groups.append([])
            filled = 0
        groups[-1].append(one)
        filled += _aligned(one.byte_count)
    return groups


def _write_data(path: Path, initializers: list[Initializer]) -> list[onnx.TensorProto]:
    """Write values into a file of their own, and return the tensors that say where they lie."""
    tensors = []
    with path.open("wb") as file:
        for one in initializers:
            file.seek(_aligned(file.tell()))
            place = {"location": path.name, "offset": file.tell(), "length": one.byte_count}
            tensor = _described(one)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            _write_values(file, one)
        _flush(file)
    return tensors


def _write_message(
    file: BinaryIO, model: onnx.ModelProto, tensors: list[onnx.TensorProto], inside: list[Initializer]
) -> None:
    """Write the message of a model whose graph also has tensors that are stored elsewhere or written here."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    graph.initializer.extend(tensors)
    heads = [_head(one) for one in inside]
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    nodes = graph.SerializeToString()
    size = len(nodes) + sum(map(len, heads)) + sum(one.byte_count for one in inside)
    file.write(shell.SerializeToString() + _length(_MODEL_GRAPH, size) + nodes)
    for head, one in zip(heads, inside, strict=True):
        file.write(head)
        _write_values(file, one)


def _write_values(file: BinaryIO, initializer: Initializer) -> None:
    written = 0
    for block in initializer.blocks():
        if block.dtype != initializer.dtype:
            raise ValueError(f"{initializer.name}: expected {initializer.dtype}, got {block.dtype}")
        written += file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    if written != initializer.byte_count:
        raise ValueError(f"{initializer.name}: expected {initializer.byte_count} bytes, got {written}")


def _head(initializer: Initializer) -> bytes:
    """Return the field of an initializer up to its values."""
    fields = _described(initializer).SerializeToString() + _length(_TENSOR_RAW_DATA, initializer.byte_count)
    return _length(_GRAPH_INITIALIZER, len(fields) + initializer.byte_count) + fields


def _described(initializer: Initializer) -> onnx.TensorProto:
    """Return the message of a tensor without its values."""
    data_type = helper.np_dtype_to_tensor_dtype(initializer.dtype)
    return onnx.TensorProto(name=initializer.name, dims=initializer.shape, data_type=data_type)


def _length(tag: bytes, size: int) -> bytes:
    """Return the beginning of a field of bytes: its tag, and its length in groups of seven bits."""
    groups = bytearray(tag)
    while size >= 0x80:
        groups.append(size & 0x7F | 0x80)
        size >>= 7
    groups.append(size)
    return bytes(groups)


def _aligned(offset: int) -> int:
    return math.ceil(offset / _ALIGNMENT) * _ALIGNMENT


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
