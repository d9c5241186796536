"""Every small file and every tensor of a checkpoint, damaged in the ways that happen: one sentence each."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.formats.finite import all_finite
from flax_distil.checkpoints.formats.huggingface import SafetensorsReader
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.errors import InputError
from tests.checkpoints.toy_folder import toy_config, toy_documents, toy_files, toy_tensors, write_files

DEEP = b"[" * 100_000 + b"]" * 100_000


def opened(tmp_path: Path, changes: dict[str, bytes | None]) -> Any:
    """Read a toy checkpoint with some files replaced, or left out where they are None."""
    files = {name: data for name, data in {**toy_files(), **changes}.items() if data is not None}
    checkpoint = load_checkpoint(write_files(tmp_path / "toy", files))
    read_tokenizer(checkpoint.files)
    return checkpoint


def refusal(tmp_path: Path, changes: dict[str, bytes | None]) -> str:
    with pytest.raises(InputError) as caught:
        opened(tmp_path, changes)
    message = str(caught.value)
    assert message.isprintable()  # one line
    assert len(message) < 1000
    return message


def changed(file: str, **values: Any) -> dict[str, bytes | None]:
    return {file: json.dumps(toy_documents()[file] | values).encode()}


def test_the_toy_is_a_checkpoint_that_is_read(tmp_path):
    checkpoint = opened(tmp_path, {})
    assert checkpoint.config == toy_config()
    np.testing.assert_array_equal(
        checkpoint.params["decoder"]["token_embedding"]["embedding"],
        toy_tensors()["model.decoder.embed_tokens.weight"],
    )


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"d_model": -1}, "has d_model -1: expected a whole number from 1 to 16384"),
        ("config.json", {"dropout": []}, "has dropout []: expected a number from 0 to below 1"),
        ("config.json", {"d_model": None}, "lacks d_model: is it a Whisper checkpoint?"),
        ("config.json", {"d_model": 100_000}, "has d_model 100000: expected a whole number from 1 to 16384"),
        (
            "generation_config.json",
            {"alignment_heads": [[1]]},
            "has alignment_heads[0] [1]: expected a list of 2 values, each a whole number from 0 to 65536",
        ),
        (
            "generation_config.json",
            {"suppress_tokens": [0.5]},
            "has suppress_tokens[0] 0.5: expected a whole number from 0 to 1774",
        ),
        (
            "generation_config.json",
            {"max_length": "448"},
            "has max_length '448': expected a whole number from 1 to 2147483647",
        ),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "has sampling_rate 8000: expected 16000"),
        (
            "tokenizer.json",
            {"added_tokens": "abc"},
            "has added_tokens 'abc': expected a list of values, each an object with id (a whole number from "
            "0 to 2147483647), content (text), special (true or false)",
        ),
    ],
)  # fmt: skip
def test_a_damaged_field_is_refused_with_file_value_and_what_was_expected(tmp_path, file, values, message):
    assert refusal(tmp_path, changed(file, **values)) == f"{file} of {tmp_path / 'toy'} {message}"


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        ("config.json", DEEP, "nests deeper than 64 levels"),
        ("generation_config.json", b'{"a":' + b"[" * 80 + b"]" * 80 + b"}", "nests deeper than 64 levels"),
        ("tokenizer.json", DEEP, "nests deeper than 64 levels"),
        ("config.json", b'{"a": 1, "a": 2}', "is not valid JSON (an object has two values for 'a')"),
        ("preprocessor_config.json", b'{"a": NaN}', "is not valid JSON (NaN is not a number of JSON)"),
        (
            "config.json",
            b'{"d_model": 1' + b"0" * 5000 + b"}",
            "is not valid JSON (Exceeds the limit (4300 digits) for integer string conversion: value has "
            "5001 digits)",
        ),
        ("config.json", b'{"a": "\\ud800"}', "holds half of a surrogate pair, which is not a character"),
        ("tokenizer_config.json", b"\xff\xfe{}", "is not UTF-8 text (at byte 0)"),
        (
            "generation_config.json",
            b"",
            "is not valid JSON (Expecting value: line 1 column 1 (char 0))",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_json_object_is_refused(tmp_path, file, contents, message):
    assert refusal(tmp_path, {file: contents}) == f"{file} of {tmp_path / 'toy'} {message}: fetch it again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"config.json": b"[]"},
            "config.json of {} is not a JSON object: expected fields in braces, got []",
        ),
        (
            {"tokenizer.json": None},
            "no tokenizer in {}: expected tokenizer.json, or vocab.json and merges.txt, as published with "
            "the checkpoint",
        ),
        (
            {"model.safetensors": None, "flax_model.msgpack": b"x"},
            "{}/flax_model.msgpack is no complete file of Flax weights: it is neither a map nor an array, at "
            "byte 0; download it again",
        ),
        (
            {"model.safetensors": None, "pytorch_model.bin": b"x"},
            "{} holds only pytorch_model.bin, not read because a pickle can run code: convert it to "
            "safetensors once, with transformers' from_pretrained(...).save_pretrained(...)",
        ),
    ],
    ids=["list", "no tokenizer", "flax", "pickle"],
)
def test_what_is_missing_is_named_with_what_to_do(tmp_path, changes, message):
    assert refusal(tmp_path, changes) == message.format(tmp_path / "toy")


def test_settings_that_are_missing_are_those_of_the_published_models(tmp_path):
    absent = dict.fromkeys(("generation_config.json", "preprocessor_config.json", "tokenizer_config.json"))
    files = opened(tmp_path, absent).files
    assert files.preprocessor_config["sampling_rate"] == 16000
    settings = read_tokenizer(files)[1]
    assert (settings.max_length, settings.max_initial_timestamp_index) == (448, 50)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"type": "WordPiece"}, "has type 'WordPiece': expected 'BPE'"),
        ({"vocab": {"a": -1}}, r"has vocab\['a'\] -1: expected a whole number"),
        (
            {"merges": [["a"]]},
            r"has merges\[0\] \['a'\]: expected text, or a list of 2 values, each text",
        ),
        ({"merges": ["a zz"]}, "is not a tokenizer that can be used"),  # its result is not in the vocabulary
        ({"continuing_subword_prefix": "##"}, "has continuing_subword_prefix '##': expected ''"),
        ({"dropout": 0.5}, "has dropout 0.5: expected 0"),
        ({"merges": None}, "lacks merges"),
    ],
)
def test_a_damaged_tokenizer_is_refused_before_the_library_panics(tmp_path, model, message, capfd):
    document = toy_documents()["tokenizer.json"]
    document["model"] |= model
    with pytest.raises(InputError, match=f"tokenizer.json of .*{message}"):
        opened(tmp_path, {"tokenizer.json": json.dumps(document).encode()})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("step", ["pre_tokenizer", "decoder"])
def test_a_tokenizer_that_does_not_work_on_bytes_is_refused(tmp_path, step):
    document = toy_documents()["tokenizer.json"]
    document[step] = {"type": "Metaspace"}
    assert refusal(tmp_path, {"tokenizer.json": json.dumps(document).encode()}) == (
        f"tokenizer.json of {tmp_path / 'toy'} has {step}.type 'Metaspace': expected 'ByteLevel'"
    )
    document[step] = None
    assert f"lacks {step}" in refusal(tmp_path / "null", {"tokenizer.json": json.dumps(document).encode()})


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    document = toy_documents()["tokenizer.json"]
    extra = document["added_tokens"][0] | {"id": toy_config().vocab_size, "content": "more"}
    document["added_tokens"].append(extra)
    message = refusal(tmp_path, {"tokenizer.json": json.dumps(document).encode()})
    assert message.startswith(f"the tokenizer of {tmp_path / 'toy'} has the token 1775, but its config.json")


def test_special_tokens_out_of_order_are_refused(tmp_path):
    document = toy_documents()["tokenizer.json"]
    document["added_tokens"][0]["id"] = 1700
    assert "expected <|endoftext|> first and <|notimestamps|> last" in refusal(
        tmp_path, {"tokenizer.json": json.dumps(document).encode()}
    )


def test_an_adapter_beside_weights_is_refused(tmp_path):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "openai/whisper-base"}
    files = toy_files()
    files |= {"adapter_config.json": json.dumps(adapter).encode(), "adapter_model.safetensors": b"x"}
    with pytest.raises(InputError) as caught:
        load_checkpoint(write_files(tmp_path / "toy", files), config_only=True)
    assert str(caught.value) == (
        f"{tmp_path / 'toy'} holds a PEFT adapter and the weights of a model, and it is not clear whether "
        "the adapter is merged into them: move one of the two elsewhere"
    )


def test_a_width_that_the_tensors_do_not_have_is_refused_before_any_weight_is_read(tmp_path):
    files = toy_files() | changed("config.json", d_model=16_000)
    folder = write_files(tmp_path / "toy", files)
    with pytest.raises(InputError, match=r"embed_tokens\.weight of .* shape \[1775, 8\], .* \[1775, 16000\]"):
        load_checkpoint(folder, config_only=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_a_value_that_is_not_finite_is_found_in_every_type(dtype, value):
    tensor = np.linspace(-6e4, 6e4, 300_000).astype(dtype).reshape(3, -1)
    tensor[0, 0] = ml_dtypes.finfo(dtype).max
    assert all_finite(tensor)
    assert all_finite(tensor.T)
    tensor[2, 99_999] = value
    assert not all_finite(tensor)
    assert not all_finite(tensor.T)
    assert not all_finite(np.asarray(value, dtype))


def test_weights_that_are_not_finite_are_refused_with_the_name_of_the_tensor(tmp_path):
    name = "model.decoder.layers.1.fc1.weight"
    tensors = {key: tensor.copy() for key, tensor in toy_tensors().items()}
    tensors[name].flat[7] = np.nan
    assert refusal(tmp_path, {"model.safetensors": save(tensors)}) == (
        f"1 of 128 values of {name} in {tmp_path / 'toy'} are NaN or infinite: the weights are damaged; "
        "fetch or export them again"
    )


def test_values_beyond_the_type_that_was_asked_for_are_refused(tmp_path):
    name = "model.decoder.layers.1.fc1.weight"
    tensors = {key: tensor.copy() for key, tensor in toy_tensors().items()}
    tensors[name].flat[7] = 1e5
    folder = write_files(tmp_path / "toy", toy_files() | {"model.safetensors": save(tensors)})
    load_checkpoint(folder, dtype="bfloat16")
    with pytest.raises(InputError, match=f"^{name} of .* reaches 100000, more than float16 can hold"):
        load_checkpoint(folder, dtype="float16")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300 + "/y", "is neither a folder here nor a model"),
        ("no\0such", r"there is no folder no\\x00such"),
        ("no\nsuch", r"there is no folder no\\nsuch"),
        (" ", "the name of a checkpoint is empty"),
        ("/dev/null", "/dev/null is a file"),
    ],
)
def test_a_name_that_no_folder_has_is_one_sentence(name, message):
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(name)
    assert str(caught.value).isprintable()


def _header(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Change the header of the toy's weights."""
    data = toy_files()["model.safetensors"]
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _tensor(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["model.encoder.conv1.bias"].update(values)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (toy_files()["model.safetensors"][:-1], "is not a complete safetensors file"),
        (toy_files()["model.safetensors"][:5], "is not a complete safetensors file"),
        (b"\xff" * 8 + b"{}", "is not a complete safetensors file"),
        (_header(_tensor(data_offsets=[0, 2**60])), "is not a complete safetensors file"),
        (_header(_tensor(data_offsets=[4, 36])), "is not a complete safetensors file"),
        (_header(_tensor(shape=[9])), "is not a complete safetensors file"),
        (_header(_tensor(dtype="X9")), "is not a complete safetensors file"),
        (_header(_tensor(dtype="I32")), r"not of a floating-point type: model.encoder.conv1.bias \(I32\)"),
    ],
    ids=range(8),
)  # fmt: skip
def test_weights_whose_header_lies_are_refused(tmp_path, weights, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, {"model.safetensors": weights})


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../model.safetensors"}, "the name of a .safetensors file in the same folder"),
        ({"a": 1}, "the name of a .safetensors file in the same folder"),
        ([], r"has weight_map \[\]: expected an object"),
        ({}, "names no files"),
        (None, "lacks weight_map"),
        (
            {str(i): f"model-{i}.safetensors" for i in range(9)},
            "and 6 more, named in model.safetens",
        ),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, weight_map, message):
    index = json.dumps({"weight_map": weight_map}).encode()
    changes = {"model.safetensors": None, "model.safetensors.index.json": index}
    with pytest.raises(InputError, match=message):
        opened(tmp_path, changes)


def _tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "overlapping": {"a": _tensor(0, 8, [2]), "b": _tensor(4, 12, [2]), "c": _tensor(12, 16, [1])},
    "shared": {"a": _tensor(0, 8, [2]), "b": _tensor(0, 8, [2]), "c": _tensor(8, 16, [2])},
    "hole": {"a": _tensor(0, 8, [2]), "b": _tensor(12, 16, [1])},
    "beyond the end": {"a": _tensor(0, 16, [4]), "b": _tensor(16, 416, [100])},
    "bytes left over": {"a": _tensor(0, 8, [2])},
    "negative": {"a": _tensor(-8, 8, [4])},
    "inverted": {"a": _tensor(16, 0, [4])},
    "huge shape": {"a": _tensor(0, 16, [2**40, 2**40])},
    "shape that wraps to 0 bytes": {"a": _tensor(0, 16, [2**62, 4])},
    "wrong total": {"a": _tensor(0, 16, [5])},
    "unknown type": {"a": _tensor(0, 16, [4], "X9")},
    "not a tensor": {"a": 7},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_of_weights_that_lies_is_refused_before_anything_is_read(tmp_path, case):
    text = json.dumps(HEADERS[case]).encode()
    write_files(
        tmp_path / "model", {"model.safetensors": len(text).to_bytes(8, "little") + text + b"\0" * 16}
    )
    with pytest.raises(InputError, match="is not a complete safetensors file"):
        _ = SafetensorsReader.open(tmp_path / "model").tensors


@pytest.mark.parametrize("length", [0, 2**63, 99_999_999])
def test_a_length_of_the_header_beyond_the_file_is_refused(tmp_path, length):
    write_files(tmp_path / "model", {"model.safetensors": length.to_bytes(8, "little") + b"{}"})
    with pytest.raises(InputError, match="is not a complete safetensors file"):
        _ = SafetensorsReader.open(tmp_path / "model").tensors


def test_a_tensor_that_a_header_names_twice_is_refused(tmp_path):
    one, other = json.dumps(_tensor(0, 16, [4])), json.dumps(_tensor(0, 16, [2, 2]))
    text = f'{{"a": {one}, "a": {other}}}'.encode()
    write_files(
        tmp_path / "model", {"model.safetensors": len(text).to_bytes(8, "little") + text + b"\0" * 16}
    )
    with pytest.raises(InputError, match="two values for 'a'"):
        _ = SafetensorsReader.open(tmp_path / "model").tensors
