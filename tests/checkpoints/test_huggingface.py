import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig as TorchConfig
from transformers import WhisperForConditionalGeneration, WhisperModel

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.config import WhisperConfig

EMBEDDING = "model.decoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def config(small_config: WhisperConfig) -> WhisperConfig:
    return dataclasses.replace(small_config, vocab_size=60)


@pytest.fixture(scope="module")
def torch_model(config: WhisperConfig) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(TorchConfig(**config.to_huggingface(), pad_token_id=0))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def folder(torch_model: WhisperForConditionalGeneration, tmp_path: Path) -> Path:
    torch_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def assert_equal(params: Params, model: torch.nn.Module, config: WhisperConfig) -> None:
    """Compare every leaf with the torch model's tensors, laid out by hand."""
    tensors = {
        name.removeprefix("model."): t.detach().float().numpy() for name, t in model.state_dict().items()
    }
    leaves = flatten(params)
    for name, location in tensor_locations(config).items():
        leaf = np.asarray(leaves[location.mapping.path], np.float32)
        ours = leaf if location.layer is None else leaf[location.layer]
        theirs = tensors[name.removeprefix("model.")]
        reverse = theirs.ndim > 1 and "embed" not in name
        np.testing.assert_array_equal(
            ours.reshape(-1), (theirs.T if reverse else theirs).reshape(-1), err_msg=name
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_of_a_checkpoint_is_read_exactly(torch_model, config, tmp_path, dtype):
    model = WhisperForConditionalGeneration(torch_model.config).to(dtype)
    model.load_state_dict(torch_model.state_dict())
    model.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config == config
    assert {leaf.dtype for leaf in flatten(checkpoint.params).values()} == {jnp.dtype(jnp.float32)}
    assert_equal(checkpoint.params, model, config)


def test_shards_are_read_like_a_single_file(torch_model, config, tmp_path):
    torch_model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_equal(load_checkpoint(tmp_path).params, torch_model, config)


def test_a_checkpoint_of_the_bare_model_is_read_too(torch_model, config, tmp_path):
    model = WhisperModel(torch_model.config)
    model.load_state_dict(torch_model.model.state_dict())
    model.save_pretrained(tmp_path)
    assert "encoder.conv1.bias" in load_file(tmp_path / "model.safetensors")
    assert_equal(load_checkpoint(tmp_path).params, torch_model, config)


def test_a_tied_projection_that_was_saved_is_accepted(torch_model, config, folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"proj_out.weight": tensors[EMBEDDING].clone()}, folder / "model.safetensors")
    assert_equal(load_checkpoint(folder).params, torch_model, config)


def test_an_untied_projection_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"proj_out.weight": tensors[EMBEDDING] + 1}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"proj_out\.weight .* differs from"):
        load_checkpoint(folder)


def test_leaves_come_in_the_type_that_was_asked_for(folder):
    leaves = flatten(load_checkpoint(folder, dtype=jnp.bfloat16).params)
    assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype(jnp.bfloat16)}


def test_missing_unexpected_and_misshapen_tensors_are_named_together(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.encoder.conv1.bias"], tensors["model.decoder.layers.3.fc1.weight"]
    tensors["model.decoder.layers.5.fc1.bias"] = torch.zeros(56)
    tensors["model.encoder.layer_norm.weight"] = torch.zeros(25)
    tensors["model.decoder.layer_norm.bias"] = torch.zeros(24, dtype=torch.int32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert "2 missing: model.encoder.conv1.bias, model.decoder.layers.3.fc1.weight" in message
    assert "1 unexpected: model.decoder.layers.5.fc1.bias" in message
    assert "1 of another shape: model.encoder.layer_norm.weight (expected [24], got [25])" in message
    assert "1 not of a floating-point type: model.decoder.layer_norm.bias (I32)" in message
    assert str(folder) in message


def test_the_configuration_alone_is_read_without_weights(folder, config):
    (folder / "model.safetensors").unlink()
    checkpoint = load_checkpoint(folder, config_only=True)
    assert checkpoint.config == config
    assert checkpoint.params == {}


def test_each_leaf_goes_where_its_sharding_says(folder):
    device = jax.devices()[0]
    mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    leaves = flatten(
        load_checkpoint(folder, sharding=lambda path: spread if path.startswith("decoder/") else None).params
    )
    assert leaves["decoder/norm/bias"].sharding == spread
    assert leaves["encoder/norm/bias"].sharding == jax.sharding.SingleDeviceSharding(device)


_SHARDED = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flax_distil.core.tree import flatten
from flax_distil.checkpoints.checkpoint import load_checkpoint

mesh = jax.make_mesh((2, 2), ("layer", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
specs = {
    "decoder/token_embedding/embedding": PartitionSpec("tensor"),
    "decoder/layers/cross_attention/query/kernel": PartitionSpec(None, None, "tensor"),
    "decoder/layers/fc2/kernel": PartitionSpec(None, "layer", "tensor"),
    "encoder/layers/fc1/kernel": PartitionSpec(None, "tensor"),
    "encoder/position_embedding/embedding": PartitionSpec("layer", "tensor"),
}
whole = flatten(load_checkpoint(sys.argv[1]).params)
place = lambda path: NamedSharding(mesh, specs.get(path, PartitionSpec()))
spread = flatten(load_checkpoint(sys.argv[1], sharding=place).params)
for path, leaf in spread.items():
    np.testing.assert_array_equal(leaf, whole[path], err_msg=path)
    if path in specs:
        assert leaf.addressable_shards[0].data.size < leaf.size, path
print("equal over", jax.device_count())
"""


def test_leaves_spread_over_devices_equal_those_on_one(folder):
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _SHARDED, folder],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "equal over 4\n", run.stderr


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _leave_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {EMBEDDING: "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{not json")


def _make_it_a_bart(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bart"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_weights, r"holds no model\.safetensors"),
        (_leave_a_pickle, r"only pytorch_model\.bin.*convert it to safetensors"),
        (_truncate, "not a complete safetensors file"),
        (_lose_a_shard, r"lacks model-00001-of-00002\.safetensors"),
        (_lose_the_config, r"holds no config\.json"),
        (_break_the_config, r"config\.json of .* is not valid JSON"),
        (_make_it_a_bart, "expected a whisper checkpoint, got model_type 'bart'"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)


def test_a_path_that_is_no_folder_is_refused(folder):
    with pytest.raises(InputError, match="is a file: expected the folder"):
        load_checkpoint(folder / "config.json")
    with pytest.raises(InputError, match=r"there is no folder .*/nowhere"):
        load_checkpoint(folder / "nowhere")


def test_settings_of_old_and_new_transformers_are_found_where_they_keep_them(folder):
    config = json.loads((folder / "config.json").read_text())
    old = {"suppress_tokens": [1, 2], "begin_suppress_tokens": [3], "max_length": 14}
    (folder / "config.json").write_text(json.dumps(config | old))
    (folder / "generation_config.json").unlink(missing_ok=True)
    processor = {"feature_extractor": {"feature_size": 80, "dither": 0.5}}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    files = load_checkpoint(folder, config_only=True).files
    assert {key: files.generation_config[key] for key in old} == old
    assert files.preprocessor_config == processor["feature_extractor"]
