"""The files of openai-whisper, which ``torch.load`` reads although torch did not write them."""

import dataclasses

import numpy as np
import pytest
import torch
import whisper

from flax_distil.checkpoints.formats.openai.names import to_huggingface, to_openai
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats import openai
from flax_distil.exporting.source import ExportSource


@pytest.fixture(scope="module")
def source(tiny_en_dir) -> ExportSource:
    return ExportSource.from_files(str(tiny_en_dir))


def test_names_can_be_translated_back(source):
    assert (
        to_openai("model.decoder.layers.3.encoder_attn.k_proj.weight")
        == "decoder.blocks.3.cross_attn.key.weight"
    )
    assert all(to_huggingface(to_openai(name)) == name for name in source.shapes)
    assert to_huggingface("decoder.mask") == "decoder.mask"


@pytest.mark.parametrize("quantization", openai.QUANTIZATIONS)
def test_torch_loads_every_weight_without_running_code(quantization, source, tmp_path):
    openai.write(source, tmp_path, quantization=quantization)
    saved = torch.load(tmp_path / "model.pt", weights_only=True, mmap=True)
    assert saved["dims"]["n_vocab"] == 51864
    assert len(saved["model_state_dict"]) == len(source.shapes)
    for name, tensor in saved["model_state_dict"].items():
        np.testing.assert_array_equal(tensor.numpy(), source.read(to_huggingface(name)).astype(quantization))
        assert tensor.data_ptr() % 64 == 0  # a mapped file is used as it lies


def test_whisper_loads_the_model(source, tmp_path):
    openai.write(source, tmp_path, quantization="float32")
    model = whisper.load_model(str(tmp_path / "model.pt"), device="cpu")
    assert model.dims.n_text_layer == 4
    assert not model.is_multilingual


def test_the_same_model_makes_the_same_file(source, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        openai.write(source, tmp_path / name, quantization="float16")
    assert (tmp_path / "one" / "model.pt").read_bytes() == (tmp_path / "two" / "model.pt").read_bytes()


def test_vocabularies_that_whisper_does_not_have_are_refused(source, tmp_path):
    config = dataclasses.replace(source.config, vocab_size=51900)
    with pytest.raises(InputError, match="no vocabularies but those of 51864, 51865, 51866 tokens"):
        openai.write(dataclasses.replace(source, config=config), tmp_path, quantization="float16")
