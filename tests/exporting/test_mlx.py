"""Exports for mlx-whisper: its own quantization bit by bit, and the words of its transcribe."""

import dataclasses

import mlx.core as mx
import mlx_whisper
import numpy as np
import pytest
from mlx_whisper.load_models import load_model
from mlx_whisper.transcribe import ModelHolder

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats import mlx
from flax_distil.exporting.source import ExportSource


@pytest.fixture(scope="module")
def source(tiny_en_dir) -> ExportSource:
    return ExportSource.from_checkpoint(init_student(load_checkpoint(tiny_en_dir), decoder_layers=2))


def write(source, folder, quantization):
    folder.mkdir()
    mlx.write(source, folder, quantization=quantization)
    return folder


@pytest.mark.parametrize(("quantization", "bits"), [("q8", 8), ("q4", 4)])
def test_matrices_are_quantized_as_mlx_does(source, tmp_path, quantization, bits):
    weights = mx.load(str(write(source, tmp_path / "mlx", quantization) / "weights.safetensors"))
    names = ("decoder.token_embedding", "encoder.blocks.0.mlp1", "decoder.blocks.1.cross_attn.query")
    tensors = (
        "model.decoder.embed_tokens.weight", "model.encoder.layers.0.fc1.weight",
        "model.decoder.layers.1.encoder_attn.q_proj.weight",
    )  # fmt: skip
    for name, tensor in zip(names, tensors, strict=True):
        matrix = mx.array(source.read(tensor).astype(np.float16))
        for end, theirs in zip(("weight", "scales", "biases"), mx.quantize(matrix, 64, bits), strict=True):
            assert mx.array_equal(weights[f"{name}.{end}"], theirs), f"{name}.{end}"


def test_mlx_whisper_loads_an_export_with_all_its_weights_and_heads(source, tmp_path):
    folder = write(source, tmp_path / "mlx", "float32")
    model, weights = load_model(str(folder)), mx.load(str(folder / "weights.safetensors"))
    assert model.alignment_heads.tolist() == [[1, head] for head in range(5)]
    found = dict(mx_leaves(model.parameters()))
    assert found.keys() == weights.keys()
    kernel = source.read("model.encoder.conv1.weight")
    np.testing.assert_array_equal(np.array(found["encoder.conv1.weight"]), kernel.transpose(0, 2, 1))


def mx_leaves(tree, above=""):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        path = f"{above}{name}"
        yield from [(path, value)] if isinstance(value, mx.array) else mx_leaves(value, f"{path}.")


@pytest.mark.slow  # without a GPU of Apple's, mlx takes long for a window
def test_its_transcribe_says_what_was_said(tiny_en_dir, tmp_path, few_prompts):
    folder = write(ExportSource.from_files(str(tiny_en_dir)), tmp_path / "mlx", "q8")
    ModelHolder.model = None
    found = mlx_whisper.transcribe(decode_audio(few_prompts[1]), path_or_hf_repo=str(folder), fp16=False)
    assert len(found["text"].split()) > 2


def test_a_model_that_mlx_whisper_cannot_run_is_refused(source, tmp_path):
    positions = "model.encoder.embed_positions.weight"

    def trained(name):
        return source.read(name) + (0.1 if name == positions else 0)

    with pytest.raises(InputError, match="those of this model were trained: export it to another format"):
        write(dataclasses.replace(source, read=trained), tmp_path / "a", "float16")
    short = dataclasses.replace(source.config, max_source_positions=750)
    with pytest.raises(InputError, match="max_source_positions 750"):
        write(dataclasses.replace(source, config=short), tmp_path / "b", "float16")
    vocabulary = dataclasses.replace(source.config, vocab_size=60000)
    with pytest.raises(InputError, match="has 60000: export it to another format"):
        write(dataclasses.replace(source, config=vocabulary), tmp_path / "c", "float16")
