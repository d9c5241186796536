"""LoRA adapters of PEFT are merged into their base as PEFT merges them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import WhisperForConditionalGeneration

from flax_distil.checkpoints.checkpoint import load_checkpoint, open_checkpoint
from flax_distil.core.errors import InputError
from tests.checkpoints.toy_folder import toy_files, write_files

QUERY = "model.decoder.layers.1.self_attn.q_proj"


def make_adapter(base: Path, folder: Path, **settings: Any) -> dict[str, np.ndarray]:
    """Save an adapter with random weights, and return the tensors of the model that PEFT merges it into."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration.from_pretrained(base, dtype="float32")
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "fc1"], **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has its opinions on tied weights
        adapted = get_peft_model(model, config)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        adapted.save_pretrained(folder)
        merged = adapted.merge_and_unload()
    return {name: tensor.numpy() for name, tensor in merged.state_dict().items() if name != "proj_out.weight"}


def check_merged(folder: Path, expected: dict[str, np.ndarray]) -> None:
    reader = open_checkpoint(folder).reader
    assert {name for name in reader.tensors if name != "proj_out.weight"} == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_allclose(reader.read(name).astype(np.float32), tensor, atol=2e-6, err_msg=name)


@pytest.fixture
def base(tmp_path) -> Path:
    return write_files(tmp_path / "base", toy_files())


def test_an_adapter_of_a_real_model_is_merged_as_peft_merges_it(tiny_en_dir, tmp_path):
    expected = make_adapter(tiny_en_dir, tmp_path / "adapter", target_modules=["q_proj", "v_proj", "fc2"])
    check_merged(tmp_path / "adapter", expected)
    files = open_checkpoint(tmp_path / "adapter").files
    assert files.origin == str(tmp_path / "adapter")
    assert "tokenizer.json" in files.tokenizer


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"fc1": 2, "decoder.layers.1.self_attn.q_proj": 64}, "rank_pattern": {"fc1": 2}},
        {"use_dora": True},
        {"target_modules": ["conv1", "conv2", "embed_positions"]},
        {"modules_to_save": ["final_layer_norm"]},
        {"bias": "lora_only"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_kind_of_adapter_is_merged_as_peft_merges_it(settings, base, tmp_path):
    check_merged(tmp_path / "adapter", make_adapter(base, tmp_path / "adapter", **settings))


def test_an_adapter_saved_as_a_pickle_is_read_as_data(base, tmp_path):
    expected, adapter = make_adapter(base, tmp_path / "adapter"), tmp_path / "adapter"
    from safetensors.torch import load_file

    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    check_merged(adapter, expected)


def test_parameters_are_loaded_in_the_asked_type(base, tmp_path):
    make_adapter(base, tmp_path / "adapter")
    params = load_checkpoint(tmp_path / "adapter", dtype="float16").params
    assert params["decoder"]["layers"]["self_attention"]["query"]["kernel"].dtype == np.float16


def write_adapter(
    base: Path, folder: Path, tensors: dict[str, np.ndarray] | None = None, **config: Any
) -> Path:
    folder.mkdir()
    document = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    pair = {"A": np.ones((2, 8), np.float32), "B": np.ones((8, 2), np.float32)}
    default = {f"base_model.model.{QUERY}.lora_{kind}.weight": values for kind, values in pair.items()}
    save_file(default if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA': expected 'LORA'"),
        ({"base_model_name_or_path": None}, "lacks base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/such/folder"}, "there is no folder /no/such/folder"),
        ({"base_model_name_or_path": "http://127.0.0.1/x"}, "the base of the adapter .* is an address"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out true: expected false"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices .* is not applied here"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "alpha_pattern with the expression"),
        ({"lora_alpha": float("inf")}, "is not valid JSON"),
    ],
)
def test_settings_that_are_not_applied_are_refused(config, problem, base, tmp_path):
    folder = write_adapter(base, tmp_path / "adapter", **config)
    with pytest.raises(InputError, match=problem):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({f"{QUERY}.lora_A.weight": np.ones((2, 8), np.float32)}, "lora_A.weight of .* do not fit"),
        ({f"{QUERY}.weight": np.ones((8, 9), np.float32)}, "do not fit"),
        ({"model.decoder.layers.7.fc1.lora_A.weight": np.ones((2, 8), np.float32)}, "is for no weight of"),
        ({f"{QUERY}.lora_X.weight": np.ones((2, 8), np.float32)}, "is for no weight of .* or of a kind"),
        ({f"{QUERY}.weight": np.ones((8, 8), np.int32)}, "has the type I32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, problem, base, tmp_path):
    tensors = {f"base_model.model.{name}": values for name, values in tensors.items()}
    with pytest.raises(InputError, match=problem):
        open_checkpoint(write_adapter(base, tmp_path / "adapter", tensors))


def test_values_that_are_not_finite_are_refused(base, tmp_path):
    tensors = {f"base_model.model.{QUERY}.weight": np.full((8, 8), np.nan, np.float32)}
    with pytest.raises(InputError, match="is not finite"):
        load_checkpoint(write_adapter(base, tmp_path / "adapter", tensors))


def test_an_adapter_beside_weights_is_refused(base, tmp_path):
    folder = write_adapter(base, tmp_path / "adapter")
    (folder / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="holds a PEFT adapter and the weights of a model"):
        open_checkpoint(folder)


def test_an_adapter_of_an_adapter_is_refused(base, tmp_path):
    inner = write_adapter(base, tmp_path / "inner")
    with pytest.raises(InputError, match="is an adapter itself"):
        open_checkpoint(write_adapter(inner, tmp_path / "outer"))


def test_an_adapter_without_weights_is_refused(base, tmp_path):
    folder = write_adapter(base, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has settings of an adapter but no adapter_model\.safetensors"):
        open_checkpoint(folder)
