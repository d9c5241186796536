import functools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import WhisperTokenizer

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.formats.ctranslate2 import CTranslate2Reader
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.config import PRESETS
from tests.real_checkpoints import CTRANSLATE2, build_ctranslate2


def convert(folder: Path, output: Path, quantization: str) -> Path:
    """Convert a Hugging Face folder with CTranslate2's own converter."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(folder), copy_files=["tokenizer.json"])
    converter.convert(str(output), quantization=quantization)
    return output


def real_folder(name: str) -> Path:
    """Give the CTranslate2 folder of a published model."""
    return build_ctranslate2(name, CTRANSLATE2 / f"whisper-{name}")


@pytest.fixture(scope="module")
def original(small_checkpoint: Checkpoint, tmp_path_factory) -> Path:
    """A Hugging Face folder of a random model."""
    checkpoint = small_checkpoint
    folder = tmp_path_factory.mktemp("original")
    return export_checkpoint(checkpoint.params, checkpoint.config, folder, files=checkpoint.files)


@pytest.fixture(scope="module")
def converted(original: Path, tmp_path_factory) -> Callable[[str], Path]:
    """Gives the model in CTranslate2's format, quantised as asked for."""

    @functools.cache
    def folder(quantization: str) -> Path:
        return convert(original, tmp_path_factory.mktemp("ct2") / quantization, quantization)

    return folder


@pytest.mark.parametrize("quantization", ["float32", "float16", "bfloat16"])
def test_unquantized_weights_are_read_exactly(original, converted, quantization: str):
    expected = load_checkpoint(original)
    found = load_checkpoint(converted(quantization))
    assert found.config == expected.config
    for path, leaf in flatten(expected.params).items():
        np.testing.assert_array_equal(flatten(found.params)[path], leaf, err_msg=path)


@pytest.mark.parametrize("quantization", ["int8", "int8_bfloat16"])
def test_int8_weights_are_within_half_a_step_of_the_original(original, converted, quantization: str):
    expected = load_checkpoint(original)
    found = load_checkpoint(converted(quantization))
    assert found.config == expected.config
    quantized = 0
    for path, leaf in flatten(expected.params).items():
        other = flatten(found.params)[path]
        if path.endswith(("kernel", "token_embedding/embedding")):
            # One row of the matrix has one step: its largest magnitude / 127; random rows of
            # a standard normal here reach no further than 5.
            assert float(jnp.abs(other - leaf).max()) <= 5 / 127 / 2, path
            quantized += int(not np.array_equal(other, leaf))
        else:
            np.testing.assert_array_equal(other, leaf, err_msg=path)
    assert quantized == 19  # two convolutions, 16 projections, the token embedding


def test_the_step_of_int8_is_that_of_its_row(original, converted):
    source = CTranslate2Reader.open(converted("int8"))
    name = "model.decoder.layers.2.encoder_attn.v_proj.weight"
    weight = np.asarray(
        load_checkpoint(original).params["decoder"]["layers"]["cross_attention"]["value"]["kernel"]
    )
    expected = weight[2].reshape(24, 24).T
    steps = np.abs(expected).max(axis=1) / 127
    errors = np.abs(source.read(name) - expected).max(axis=1)
    assert np.all(errors <= steps * 0.501)
    assert np.all(errors > 0)


def test_int16_weights_are_within_half_a_step_of_the_original(original, converted):
    expected = flatten(load_checkpoint(original).params)
    found = flatten(load_checkpoint(converted("int16")).params)
    for path, leaf in expected.items():
        # One step for a whole matrix: its largest magnitude / 2**10.
        np.testing.assert_allclose(found[path], leaf, atol=5.5 / 2**10 / 2, err_msg=path)


def test_a_real_int8_model_is_near_the_real_float16_one(tiny_en_dir: Path, tmp_path: Path):
    expected = flatten(load_checkpoint(tiny_en_dir).params)
    found = load_checkpoint(convert(tiny_en_dir, tmp_path / "ct2", "int8_float16"))
    assert found.config == PRESETS["tiny.en"]
    for path, leaf in flatten(found.params).items():
        scale = float(jnp.abs(expected[path]).max())
        assert float(jnp.abs(leaf - expected[path]).max()) <= scale / 127 / 2 * 1.01, path


def test_a_real_folder_gives_the_published_shape_and_whole_settings():
    checkpoint = load_checkpoint(real_folder("base"), config_only=True)
    assert checkpoint.config == PRESETS["base"]
    assert checkpoint.params == {}
    generation = checkpoint.files.generation_config
    assert generation["lang_to_id"]["<|en|>"] == 50259
    assert len(generation["lang_to_id"]) == 99
    assert generation["task_to_id"] == {"transcribe": 50359, "translate": 50358}
    assert generation["no_timestamps_token_id"] == 50363
    assert generation["prev_sot_token_id"] == 50361
    assert generation["alignment_heads"] == [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]
    assert generation["begin_suppress_tokens"] == [220, 50257]
    assert generation["is_multilingual"] is True


def test_an_english_folder_has_no_language_settings():
    checkpoint = load_checkpoint(
        build_ctranslate2("tiny.en", CTRANSLATE2 / "whisper-tiny.en"), config_only=True
    )
    generation = checkpoint.files.generation_config
    assert generation["is_multilingual"] is False
    assert not {"lang_to_id", "task_to_id"} & generation.keys()
    assert generation["decoder_start_token_id"] == 50257
    assert generation["eos_token_id"] == 50256


def test_timestamps_are_added_to_the_tokenizer_and_stay_out_of_the_special_tokens(tmp_path: Path):
    checkpoint = load_checkpoint(
        build_ctranslate2("tiny.en", CTRANSLATE2 / "whisper-tiny.en"), config_only=True
    )
    checkpoint.files.write(tmp_path)
    tokenizer = WhisperTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == checkpoint.config.vocab_size
    assert tokenizer.encode("<|0.00|> Hello<|30.00|>", add_special_tokens=False) == [50363, 18435, 51863]
    assert max(tokenizer.all_special_ids) == 50362


def test_a_tokenizer_that_has_its_timestamps_keeps_them_as_they_are(original, converted):
    files = load_checkpoint(converted("int8"), config_only=True).files
    tokens = json.loads(files.tokenizer["tokenizer.json"])["added_tokens"]
    assert tokens == json.loads((original / "tokenizer.json").read_bytes())["added_tokens"]
    assert "<|0.00|>" not in files.tokenizer_config["additional_special_tokens"]


def test_an_older_binary_version_is_read(converted, tmp_path: Path):
    folder = shutil.copytree(converted("float32"), tmp_path / "older")
    data = bytearray((folder / "model.bin").read_bytes())
    data[:4] = struct.pack("<I", 5)
    (folder / "model.bin").write_bytes(data)
    (folder / "config.json").unlink()
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config.decoder_layers == 5
    assert checkpoint.files.generation_config["suppress_tokens"] is None


def _cut(folder: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(data[: len(data) // 2])


def _cut_header(folder: Path) -> None:
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:9])


def _newer(folder: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(struct.pack("<I", 7) + data[4:])


def _other_model(folder: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(data.replace(b"WhisperSpec", b"WordPieceSp", 1))


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _other_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": []}))


def _renamed_array(folder: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    name = b"encoder/layer_1/ffn/linear_1/bias\0"
    assert name in data
    (folder / "model.bin").write_bytes(data.replace(name, name.replace(b"bias", b"bios"), 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"not a complete CTranslate2 Whisper model: it ends inside"),
        (_cut_header, r"not a complete CTranslate2 Whisper model"),
        (_newer, r"binary version 7, expected 5 or 6"),
        (_other_model, r"model type 'WordPieceSp', expected 'WhisperSpec'"),
        (_no_tokenizer, r"holds no tokenizer\.json: copy it there"),
        (_other_tokenizer, r"has no token '<\|endoftext\|>': it is not Whisper's"),
        (
            _renamed_array,
            r"1 missing: model\.encoder\.layers\.1\.fc2\.bias; 1 unexpected: encoder/layer_1/ffn/linear_1/bi",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(converted, tmp_path, damage, message):
    folder = shutil.copytree(converted("float16"), tmp_path / "damaged")
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)
