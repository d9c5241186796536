"""Write a model as ONNX, in the layout that Transformers.js and Optimum's ONNX Runtime classes load.

::

    config.json, generation_config.json, preprocessor_config.json, tokenizer.json, …
    onnx/encoder_model.onnx               onnx/decoder_model_merged.onnx               fp32
    onnx/encoder_model_quantized.onnx     onnx/decoder_model_merged_quantized.onnx     q8
    onnx/encoder_model_fp16.onnx          onnx/decoder_model_merged_fp16.onnx          fp16

The merged decoder alone is written: neither of the two reads ``decoder_model.onnx`` and
``decoder_with_past_model.onnx`` where it is there, and they would hold all weights two times more.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.checkpoints.exported_files import exported_files
from flax_distil.exporting.onnx.decoder import decoder_model
from flax_distil.exporting.onnx.encoder import encoder_model
from flax_distil.exporting.onnx.graph import Graph
from flax_distil.exporting.onnx.initializers import WeightStore
from flax_distil.exporting.onnx.model_file import write_model
from flax_distil.exporting.onnx.precision import PRECISIONS, Precision, model_paths
from flax_distil.exporting.source import ExportSource

QUANTIZATIONS = ("fp32+q8", "fp32", "fp16", "q8", "fp32+fp16+q8")
"""What may be written: precisions by their name in Transformers.js, several of them joined by ``+``.

Transformers.js looks for q8 in browsers and for fp32 in Node and on WebGPU, unless it is told otherwise.
"""


def write(source: ExportSource, folder: Path, *, quantization: str = QUANTIZATIONS[0]) -> None:
    """Write ONNX models and the small files beside them.

    The decoder also returns its cross-attention where the generation settings name alignment heads, so that
    Transformers.js can time words.

    Args:
        source: The model.
        folder: An existing, empty folder.
        quantization: One of :data:`QUANTIZATIONS`.

    Raises:
        InputError: If a value does not fit float16.
    """
    files = exported_files(source.files, source.config, np.dtype(np.float32))
    attentions = bool(files.generation_config.get("alignment_heads"))
    data_files: dict[str, int] = {}
    for name in quantization.split("+"):
        data_files |= _write_models(source, folder, PRECISIONS[name], attentions=attentions)
    config = {**files.config, "transformers.js_config": _runtime_settings(data_files)}
    dataclasses.replace(files, config=config).write(folder)


def _write_models(
    source: ExportSource, folder: Path, precision: Precision, *, attentions: bool
) -> dict[str, int]:
    """Write the encoder and the decoder; return the number of files with weights of those that have any."""
    config, weights = source.config, WeightStore(source=source, precision=precision)
    graphs = Graph(weights), Graph(weights)
    models = encoder_model(graphs[0], config), decoder_model(graphs[1], config, attentions=attentions)
    data_files: dict[str, int] = {}
    for path, model, graph in zip(model_paths(folder, precision), models, graphs, strict=True):
        path.parent.mkdir(exist_ok=True)
        count = write_model(path, model, graph.initializers.values())
        data_files |= {path.name: count} if count else {}
    return data_files


def _runtime_settings(data_files: dict[str, int]) -> dict[str, Any]:
    """Return what Transformers.js needs to know: types of caches, and the files of weights beside models."""
    settings: dict[str, Any] = {"kv_cache_dtype": {"fp16": "float16"}}
    return settings | ({"use_external_data_format": data_files} if data_files else {})
