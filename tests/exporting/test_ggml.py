"""The files of whisper.cpp: blocks equal to those of ggml itself, and models that it loads."""

import contextlib
import ctypes
import dataclasses
import importlib.util
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.checkpoints.formats.openai.files import read_openai_files
from flax_distil.core.errors import InputError
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.formats import ggml
from flax_distil.exporting.formats.ggml_blocks import BLOCK_TYPES, quantize_blocks
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.compare import compare, comparison_table
from flax_distil.exporting.verification.ggml import WhisperCppRuntime, open_runtime
from flax_distil.exporting.verification.runtime import Clip
from flax_distil.model.config import WhisperConfig
from flax_distil.text.normalizers import get_normalizer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def source(tiny_en_dir) -> ExportSource:
    return ExportSource.from_files(str(tiny_en_dir))


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """The library of ggml that pywhispercpp installs."""
    spec = importlib.util.find_spec("_pywhispercpp")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).parent / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    return library


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_blocks_are_those_of_ggml_byte_for_byte(name, library, source):
    values_RD = source.read("model.decoder.layers.0.fc1.weight").astype(np.float32)
    values_RD[0], values_RD[1] = 0, 3.0
    block_type = BLOCK_TYPES[name]
    ours = quantize_blocks(values_RD, block_type)
    theirs = np.zeros_like(ours)
    written = library.ggml_quantize_chunk(
        block_type.type_id, values_RD.ctypes.data, theirs.ctypes.data, 0, *values_RD.shape, None
    )
    assert written == ours.nbytes
    assert ours.shape[1] == block_type.block_bytes
    np.testing.assert_array_equal(ours, theirs)


def test_rows_that_do_not_make_blocks_are_refused(source):
    with pytest.raises(ValueError, match="multiple of 32"):
        quantize_blocks(np.ones((2, 48), np.float32), BLOCK_TYPES["q8_0"])


def test_the_file_begins_with_sizes_filters_and_tokens(source, tmp_path):
    ggml.write(source, tmp_path, quantization="q5_0")
    with (tmp_path / "ggml-model-q5_0.bin").open("rb") as file:
        header = struct.unpack("<12i", file.read(48))
        assert header == (0x67676D6C, 51864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 2008)
        mels, bins = struct.unpack("<2i", file.read(8))
        filters_MF = np.frombuffer(file.read(4 * mels * bins), "<f4").reshape(mels, bins)
        count = struct.unpack("<i", file.read(4))[0]
        tokens = [file.read(struct.unpack("<i", file.read(4))[0]) for _ in range(count)]
    spec = importlib.util.find_spec("whisper")
    assert spec is not None
    assert spec.origin is not None
    with np.load(Path(spec.origin).parent / "assets" / "mel_filters.npz") as published:
        np.testing.assert_allclose(filters_MF, published["mel_80"], atol=1e-8)
    assert count == 50256  # text alone: whisper.cpp adds the special tokens
    assert tokens[:2] == [b"!", b'"']
    assert tokens[262] == b" the"


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"encoder_ffn_dim": 1024}, "encoder_ffn_dim 1024 is not 4 * 384"),
        ({"max_source_positions": 750}, "whisper.cpp processes 30 s at a time"),
        ({"vocab_size": 51865}, "computes the ids of special tokens from vocab_size 51865"),
        (
            {
                "d_model": 300,
                "encoder_ffn_dim": 1200,
                "decoder_ffn_dim": 1200,
            },
            "d_model 300 is no multiple",
        ),
    ],
)
def test_models_that_whisper_cpp_cannot_run_are_refused(sizes, problem, source, tmp_path):
    other = dataclasses.replace(source, config=dataclasses.replace(source.config, **sizes))
    with pytest.raises(InputError, match=re.escape(problem)):
        ggml.write(other, tmp_path, quantization="q8_0")
    assert not any(tmp_path.iterdir())


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[WhisperCppRuntime]:
    """Load an export, and free it before the interpreter ends, which pywhispercpp does not survive."""
    runtime = open_runtime(folder)
    try:
        yield runtime
    finally:
        runtime.model.__del__()
        runtime.model._ctx = None


@pytest.mark.parametrize("quantization", ["f16", "q5_0"])
def test_whisper_cpp_says_what_was_said(quantization, source, prompts_dir, tmp_path):
    ggml.write(source, tmp_path, quantization=quantization)
    samples_W = decode_audio(prompts_dir / "validation" / "all-circuits-busy-now.ogg")
    clip = Clip(name="x", samples_W=samples_W, language=None, prompt=(50257, 50362))
    with opened(tmp_path) as runtime:
        assert runtime.transcribe(clip).strip() == "All circuits are busy now."


def test_float32_is_not_given_to_a_whisper_cpp_that_would_end_the_process(source, tmp_path):
    ggml.write(source, tmp_path, quantization="f32")
    assert (tmp_path / "ggml-model-f32.bin").stat().st_size > 4 * 37e6
    choice = Choice(name="ggml", quantization="f32")
    table = comparison_table([compare(choice, tmp_path, [], get_normalizer("en"))])
    assert "whisper.cpp: not run" in table
    assert "ggml: whisper.cpp 1.8.5 of pywhispercpp aborts on float32 models" in table


def test_whisper_cpp_loads_shallow_decoders_odd_depths_and_large_v3s_features(source, tmp_path):
    config = WhisperConfig(
        vocab_size=51866, num_mel_bins=128, d_model=64, encoder_layers=3, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=256, decoder_ffn_dim=256,
    )  # fmt: skip
    shapes = {name: location.shape for name, location in tensor_locations(config).items()}
    generator = np.random.default_rng(0)
    student = ExportSource(
        config=config,
        files=read_openai_files(tmp_path, config, origin="student"),  # the vocabulary of 100 languages
        read=lambda name: generator.normal(scale=0.05, size=shapes[name]).astype(np.float32),
        shapes=shapes,
    )
    ggml.write(student, tmp_path, quantization="q5_0")
    samples_W = generator.normal(scale=0.01, size=16000).astype(np.float32)
    with opened(tmp_path) as runtime:
        assert isinstance(
            runtime.transcribe(Clip(name="x", samples_W=samples_W, language="yue", prompt=())), str
        )
