"""The toy Whisper in the files of other programs: of openai-whisper and of Flax."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
from flax.serialization import to_bytes
from flax.traverse_util import unflatten_dict

from flax_distil.checkpoints.formats.openai.names import to_openai
from flax_distil.exporting.formats.openai import dimensions
from flax_distil.exporting.formats.torch_archive import StateDict, write_torch_archive
from tests.checkpoints.toy_folder import toy_config, toy_documents, toy_files, toy_tensors


def toy_openai_files() -> dict[str, bytes]:
    """Return a ``.pt`` file with the tokenizer beside it."""
    return {"model.pt": _model_pt(), "tokenizer.json": json.dumps(toy_documents()["tokenizer.json"]).encode()}


def toy_flax_files() -> dict[str, bytes]:
    """Return a folder with Flax weights."""
    files = toy_files()
    del files["model.safetensors"]
    return {**files, "flax_model.msgpack": _flax_weights()}


@functools.cache
def _model_pt() -> bytes:
    tensors = {to_openai(name): _with_wide_blocks(name, values) for name, values in toy_tensors().items()}
    shapes = {name: values.shape for name, values in tensors.items()}
    state = StateDict(shapes=shapes, dtype=np.dtype("float32"), read=tensors.__getitem__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        write_torch_archive(path, {"dims": dimensions(toy_config())}, {"model_state_dict": state})
        return path.read_bytes()


def _with_wide_blocks(name: str, values: np.ndarray) -> np.ndarray:
    """Return a tensor of feed-forward blocks that are four times as wide as the model, as OpenAI's are."""
    wide = 4 * toy_config().d_model
    if ".fc1." in name:
        return np.resize(values, (wide, *values.shape[1:]))
    return np.resize(values, (values.shape[0], wide)) if name.endswith(".fc2.weight") else values


@functools.cache
def _flax_weights() -> bytes:
    params = {}
    for name, values in toy_tensors().items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight":
            leaf = "embedding" if "embed_" in module else "scale" if "norm" in module else "kernel"
        params[f"{module}.{leaf}"] = values.T if leaf == "kernel" else values
    return to_bytes(unflatten_dict(params, sep="."))
