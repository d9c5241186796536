"""Flax weights of Hugging Face folders, layer by layer or stacked, read as the weights that they are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import to_bytes
from flax.traverse_util import flatten_dict, unflatten_dict

from flax_distil.checkpoints.checkpoint import load_checkpoint, open_checkpoint
from flax_distil.core.errors import InputError
from tests.checkpoints.toy_folder import toy_files, write_files


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_files(tmp_path / "toy", toy_files())


def flax_params(folder: Path, *, dtype: str = "float32") -> dict[str, np.ndarray]:
    """The weights of a folder with the names and axes of transformers' Flax models."""
    reader = open_checkpoint(folder).reader
    params = {}
    for name in reader.tensors:
        tensor, (module, _, leaf) = reader.read(name), name.rpartition(".")
        if "embed_" in name:
            leaf = "embedding"
        elif leaf == "weight":
            leaf = "scale" if "norm" in module else "kernel"
        values = tensor.T if leaf == "kernel" else tensor
        params[f"{module.replace('.', '/')}/{leaf}"] = np.asarray(jnp.asarray(values, dtype))
    return params


def nested(params: dict[str, np.ndarray]) -> dict[str, Any]:
    return unflatten_dict(params, sep="/")


def stacked(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The layers as ``convert_unroll_to_scan`` of Distil-Whisper stacks them."""
    found = {name: values for name, values in params.items() if "/layers/" not in name}
    for name in params:
        if "/layers/0/" in name:
            side = "Encoder" if "/encoder/" in name else "Decoder"
            layers = [params[name.replace("/layers/0/", f"/layers/{layer}/")] for layer in range(2)]
            found[name.replace("/0/", f"/Flax{side}ScanLayers/")] = np.stack(layers)
    return found


def replace_weights(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "model.safetensors").unlink()
    for name, contents in files.items():
        (folder / name).write_bytes(contents)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("arrange", [dict, stacked])
def test_every_weight_is_read(folder, arrange: Callable, dtype):
    expected = load_checkpoint(folder, dtype=dtype)
    params = arrange(flax_params(folder, dtype=dtype))
    replace_weights(folder, {"flax_model.msgpack": to_bytes(nested(params))})
    found = load_checkpoint(folder, dtype=dtype)
    assert found.config == expected.config
    ours, theirs = flatten_dict(found.params), flatten_dict(expected.params)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(theirs[path]), err_msg=str(path))


def test_several_files_are_one_model(folder):
    reader, params = open_checkpoint(folder).reader, flax_params(folder)
    expected = {name: reader.read(name) for name in reader.tensors}
    names = sorted(params)
    parts = [{name: params[name] for name in half} for half in (names[::2], names[1::2])]
    files = {f"flax_model-0000{i}-of-00002.msgpack": to_bytes(part) for i, part in enumerate(parts, 1)}
    replace_weights(folder, files)
    found = open_checkpoint(folder).reader
    assert found.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found.read(name), tensor)


def test_safetensors_are_read_where_both_are(folder):
    (folder / "flax_model.msgpack").write_bytes(b"not read")
    assert load_checkpoint(folder).params


def damaged(contents: bytes) -> list[bytes]:
    return [
        b"",
        b"{}",
        b"\x81\xa1a\x01",
        b"\x81\xa1a" * 100 + b"\x80",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xd9",
        contents[:-10],
        contents + b"\x80",
        contents.replace(b"float32", b"float99", 1),
        contents.replace(b"float32", b"float16", 1),
    ]


@pytest.mark.parametrize("index", range(10))
def test_damaged_files_are_refused(folder, index):
    contents = damaged(to_bytes(nested(flax_params(folder))))[index]
    replace_weights(folder, {"flax_model.msgpack": contents})
    with pytest.raises(InputError, match=r"is no complete file of Flax weights: .*; download it again"):
        open_checkpoint(folder)


def test_a_stack_of_too_many_layers_is_refused(folder):
    params = {"model/encoder/layers/FlaxEncoderScanLayers/fc1/bias": np.zeros((2**30, 0), np.float32)}
    replace_weights(folder, {"flax_model.msgpack": to_bytes(nested(params))})
    with pytest.raises(InputError, match=re.escape(f"has {2**30} layers")):
        open_checkpoint(folder)
