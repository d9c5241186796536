"""Exports for ONNX Runtime and Transformers.js: graphs, logits and texts are ours."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from flax_distil.core.nested import build
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.job import run
from flax_distil.exporting.onnx import model_file
from flax_distil.exporting.onnx.precision import PRECISIONS, model_paths
from flax_distil.exporting.onnx.session import OnnxSession
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.compare import logit_distance
from flax_distil.exporting.verification.job import Verification
from flax_distil.exporting.verification.onnx import open_runtime
from tests.exporting import transformers_js


def export(source: Path, folder: Path, quantization: str) -> Path:
    values = {"format": ["onnx"], "quantization": [quantization], "output_dir": str(folder)}
    run(build(ExportConfig, model_name_or_path=str(source), **values))
    return folder


@pytest.fixture(scope="module")
def exported(tiny_en_dir, tmp_path_factory) -> Path:
    return export(tiny_en_dir, tmp_path_factory.mktemp("onnx") / "tiny.en", "fp32+q8")


@pytest.fixture(scope="module")
def expected(tiny_en_dir, prompts_dir):
    recordings = sorted((prompts_dir / "validation").glob("*.ogg"))[:2]
    source = ExportSource.from_files(str(tiny_en_dir))
    return Verification.prepare(source, list(map(str, recordings))).expected


def test_the_checker_of_onnx_accepts_every_graph(exported):
    files = sorted((exported / "onnx").iterdir())
    assert [file.name for file in files] == [
        "decoder_model_merged.onnx",
        "decoder_model_merged_quantized.onnx",
        "encoder_model.onnx",
        "encoder_model_quantized.onnx",
    ]
    for file in files:
        onnx.checker.check_model(str(file), full_check=True)


def test_inputs_and_outputs_have_the_names_that_runtimes_expect(exported):
    session = OnnxSession.open(exported, "fp32")
    inputs = {one.name: one.shape for one in session.decoder.get_inputs()}
    assert inputs["input_ids"] == ["batch_size", "decoder_sequence_length"]
    assert inputs["past_key_values.3.decoder.value"] == ["batch_size", 6, "past_decoder_length", 64]
    assert inputs["past_key_values.0.encoder.key"] == ["batch_size", 6, "past_encoder_length", 64]
    assert inputs["use_cache_branch"] == [1]
    outputs = [one.name for one in session.decoder.get_outputs()]
    kinds = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
    assert outputs == [
        "logits",
        *(f"present.{layer}.{kind}" for layer in range(4) for kind in kinds),
        *(f"cross_attentions.{layer}" for layer in range(4)),
    ]


def test_float32_has_our_logits_and_our_texts(exported, expected):
    runtime = open_runtime(exported)
    for one in expected:
        assert runtime.transcribe(one.clip).strip() == one.text
        assert logit_distance(one.logits_TV, runtime.logits(one.clip, one.tokens)) < 1e-3


def test_eight_bits_change_few_tokens_and_take_little_room(exported, expected):
    runtime = open_runtime(exported, "q8")
    for one in expected:
        theirs_TV = runtime.logits(one.clip, one.tokens)
        same = one.logits_TV.argmax(axis=1) == theirs_TV.argmax(axis=1)
        assert same.mean() > 0.9
    whole, quantized = (
        sum(path.stat().st_size for path in model_paths(exported, PRECISIONS[name]))
        for name in ("fp32", "q8")
    )
    assert quantized < 0.3 * whole


def test_tokens_may_be_read_together_or_one_by_one(exported, expected):
    session, one = OnnxSession.open(exported, "fp32"), expected[0]
    encoder_out_BSD = session.encode(open_runtime(exported).features(one.clip))
    tokens_BT = np.array([[*one.clip.prompt, *one.tokens]] * 2)
    together_BTV, _ = session.step(tokens_BT, encoder_out_BSD.repeat(2, axis=0), {})
    first_BTV, cache = session.step(tokens_BT[:, :3], encoder_out_BSD.repeat(2, axis=0), {})
    rest_BTV, _ = session.step(tokens_BT[:, 3:], encoder_out_BSD.repeat(2, axis=0), cache)
    np.testing.assert_allclose(np.concatenate([first_BTV, rest_BTV], axis=1), together_BTV, atol=1e-4)


def test_weights_of_a_large_model_lie_in_files_beside_it(teacher, tmp_path, monkeypatch):
    whole = export(teacher, tmp_path / "whole", "fp32")
    monkeypatch.setattr(model_file, "MAX_FILE_SIZE", 100_000)
    divided = export(teacher, tmp_path / "divided", "fp32")
    settings = json.loads((divided / "config.json").read_text())["transformers.js_config"]
    for name, count in settings["use_external_data_format"].items():
        files = [f"{name}_data", *(f"{name}_data_{number}" for number in range(1, count))]
        assert count > 1
        assert sorted(file.name for file in (divided / "onnx").glob(f"{name}_data*")) == sorted(files)
        onnx.checker.check_model(str(divided / "onnx" / name), full_check=True)
    sessions = [OnnxSession.open(folder, "fp32") for folder in (whole, divided)]
    features_BMR = np.random.default_rng(0).normal(size=sessions[0].features_shape).astype(np.float32)
    outs = [session.encode(features_BMR) for session in sessions]
    np.testing.assert_array_equal(outs[0], outs[1])
    logits = [session.step(np.array([[1, 2, 3]]), outs[0], {})[0] for session in sessions]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_transformers_js_says_what_we_say(exported, expected, tmp_path):
    transformers_js.skip_if_absent()
    samples = [one.clip.samples_W for one in expected]
    for dtype in ("fp32", "q8"):
        outputs = transformers_js.transcribe(exported, dtype, samples, tmp_path)
        assert [output["text"].strip() for output in outputs] == [one.text for one in expected]
