"""Which formats are written, and with which quantization."""

import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.exporting.choices import choose_formats
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.format_table import FORMATS, Format, Writer


def chosen(formats, *, dtype=None, quantization=None) -> dict[str, str]:
    choices = choose_formats([formats], dtype=dtype, quantization=quantization)
    return {choice.name: choice.quantization for choice in choices}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_writer(name):
    kind = FORMATS[name]
    assert isinstance(kind.writer, Writer)
    assert isinstance(kind.writer.QUANTIZATIONS, tuple)
    assert kind.weights
    assert (kind.package is None) == (kind.extra is None)


def test_a_format_has_its_usual_element_type_unless_one_is_given():
    assert chosen("hf") == {"hf": "float16"}
    assert chosen("hf", dtype="bfloat16") == {"hf": "bfloat16"}
    assert chosen("hf", dtype="bfloat16", quantization=["hf:float32"]) == {"hf": "float32"}
    assert chosen("hf", quantization=["f32"]) == {"hf": "float32"}


@pytest.mark.parametrize(
    ("formats", "options", "problem"),
    [
        ("safetensors", {}, "format 'safetensors' is unknown: expected some of hf"),
        (",", {}, "format that is asked for is unknown"),
        ("hf,hf", {}, "names a format twice"),
        ("hf", {"quantization": ["ct2:int8"]}, "is for a format that is not written: expected hf"),
        ("hf", {"quantization": ["hf:float32,hf:float16"]}, "names 'float32' and 'float16' for hf"),
        (
            "hf",
            {"quantization": ["int3"]},
            "quantization 'int3' is none of format hf: expected one of",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(formats, options, problem):
    with pytest.raises(InputError, match=problem):
        chosen(formats, **options)


def test_a_format_whose_package_is_absent_names_the_extra(monkeypatch):
    kind = Format(module="formats.x", runtime="x", weights=("x",), package="absent", extra="x")
    monkeypatch.setitem(FORMATS, "x", kind)
    with pytest.raises(InputError, match=r'not installed: run pip install "flax-distil\[x\]"'):
        chosen("x")


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1000", 1000)]
)
def test_sizes_of_shards_are_written_as_in_transformers(text, size):
    config = build(ExportConfig, model_name_or_path="m", output_dir="o", max_shard_size=text)
    assert config.shard_bytes == size


@pytest.mark.parametrize("text", ["", "0", "many", "5 TB", "-1MB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="max_shard_size"):
        build(ExportConfig, model_name_or_path="m", output_dir="o", max_shard_size=text)
