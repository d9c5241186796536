"""Exports to CTranslate2: the arrays of the package's own converter, and the words of faster-whisper."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from faster_whisper import WhisperModel

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.formats.ctranslate2_index import read_index
from flax_distil.checkpoints.student import init_student
from flax_distil.core.tree import flatten
from flax_distil.exporting.formats import ctranslate2
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.ctranslate2 import open_runtime
from flax_distil.exporting.verification.runtime import Clip
from flax_distil.text.tokenizer import WhisperTokenizer

pytestmark = pytest.mark.integration

_CONVERT = """
import sys
from ctranslate2.converters import TransformersConverter

for quantization in sys.argv[3:]:
    folder = f"{sys.argv[2]}/{quantization}"
    TransformersConverter(sys.argv[1]).convert(folder, quantization=quantization)
"""


def arrays(folder) -> dict[str, np.ndarray]:
    path = folder / "model.bin"
    with path.open("rb") as file:
        index = read_index(file, size=path.stat().st_size)
    return {
        name: np.fromfile(path, one.dtype, count=int(np.prod(one.shape)), offset=one.offset).reshape(
            one.shape
        )
        for name, one in index.items()
    }


def write(source, folder, quantization):
    folder.mkdir()
    ctranslate2.write(source, folder, quantization=quantization)
    return folder


@pytest.fixture(scope="module")
def source(tiny_en_dir) -> ExportSource:
    return ExportSource.from_files(str(tiny_en_dir))


@pytest.mark.slow  # the converter loads torch and transformers
def test_the_arrays_are_those_of_the_converter_of_ctranslate2(source, tiny_en_dir, tmp_path):
    kinds = ("float16", "float32", "bfloat16", "int8_float16", "int8_float32")
    (tmp_path / "theirs").mkdir()
    command = [sys.executable, "-c", _CONVERT, str(tiny_en_dir), str(tmp_path / "theirs"), *kinds]
    subprocess.run(command, check=True, capture_output=True)
    for kind in kinds:
        theirs, ours = arrays(tmp_path / "theirs" / kind), arrays(write(source, tmp_path / kind, kind))
        assert theirs.keys() == ours.keys()
        for name, array in theirs.items():
            assert array.dtype == ours[name].dtype, name
            np.testing.assert_array_equal(array, ours[name], err_msg=f"{kind} {name}")
        for name in ("config.json", "vocabulary.json"):
            pair = [json.loads((tmp_path / part / kind / name).read_text()) for part in ("theirs", ".")]
            if (
                name == "config.json"
            ):  # used by multilingual models alone; theirs is empty with transformers 5
                assert [one.pop("lang_ids") for one in pair] == [[], list(range(50258, 50357))]
            assert pair[0] == pair[1], name


def test_a_float32_export_read_back_is_the_checkpoint(source, tiny_en_dir, tmp_path):
    folder = write(source, tmp_path / "ct2", "float32")
    back, checkpoint = load_checkpoint(folder), load_checkpoint(tiny_en_dir)
    assert back.config == checkpoint.config
    for path, leaf in flatten(checkpoint.params).items():
        np.testing.assert_array_equal(flatten(back.params)[path], leaf, err_msg=path)
    ours, theirs = back.files.generation_config, checkpoint.files.generation_config
    for key in ("alignment_heads", "suppress_tokens", "begin_suppress_tokens"):
        assert ours[key] == theirs[key]


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_faster_whisper_loads_an_export_and_says_what_was_said(
    source, tmp_path, quantization, few_prompts, held_out
):
    model = WhisperModel(str(write(source, tmp_path / "ct2", quantization)), device="cpu", cpu_threads=1)
    samples = decode_audio(few_prompts[1])
    segments, _ = model.transcribe(samples, beam_size=1, without_timestamps=True)
    said = next(text for path, text in held_out.items() if str(path) == few_prompts[1])
    assert "".join(segment.text for segment in segments).strip(" .").lower() == said.strip(" .").lower()


def test_a_shallow_student_keeps_the_heads_that_it_has(tiny_en_dir, tmp_path):
    student = init_student(load_checkpoint(tiny_en_dir), decoder_layers=2)
    folder = write(ExportSource.from_checkpoint(student), tmp_path / "ct2", "float16")
    settings = json.loads((folder / "config.json").read_text())
    assert {layer for layer, _ in settings["alignment_heads"]} == {1}
    assert settings["lang_ids"] == list(range(50259 - 1, 50357))
    assert load_checkpoint(folder).config.decoder_layers == 2


def test_writing_imports_neither_torch_nor_transformers(tiny_en_dir, tmp_path):
    code = """
import sys
from pathlib import Path
from flax_distil.exporting.formats import ctranslate2
from flax_distil.exporting.source import ExportSource
ctranslate2.write(ExportSource.from_files(sys.argv[1]), Path(sys.argv[2]), quantization="int8")
print([name for name in ("torch", "transformers") if name in sys.modules])
import ctranslate2.converters.transformers as converters  # is whole again
print(converters.model_spec.torch_is_available)
"""
    command = [sys.executable, "-c", code, str(tiny_en_dir), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "True"]
    version, length = struct.unpack("<IH", (tmp_path / "model.bin").read_bytes()[:6])
    assert (version, length) == (6, len("WhisperSpec") + 1)


def test_logits_are_compared_along_the_whole_transcript(source, tiny_en_dir, prompts_dir, tmp_path):
    """CTranslate2 emits half of the limit that it is given."""
    runtime = open_runtime(write(source, tmp_path / "ct2", "float32"))
    samples_W = decode_audio(prompts_dir / "validation" / "all-circuits-busy-now.ogg")
    clip = Clip(name="x", samples_W=samples_W, language=None, prompt=(50257, 50362))
    tokens = WhisperTokenizer.from_pretrained(tiny_en_dir).encode(" All circuits are busy now.")
    logits_TV = runtime.logits(clip, tokens)
    assert logits_TV is not None
    assert len(logits_TV) >= len(tokens)
