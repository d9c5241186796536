"""Exports for ONNX Runtime and Transformers.js: graphs, logits and texts are ours."""

import json
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.core.nested import build
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.job import run
from flax_distil.exporting.onnx import model_file
from flax_distil.exporting.onnx.precision import PRECISIONS, model_paths
from flax_distil.exporting.onnx.session import OnnxSession
from flax_distil.exporting.verification.onnx import OnnxRuntime, open_runtime
from flax_distil.exporting.verification.runtime import Clip
from flax_distil.model.assembly import bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from tests.exporting import transformers_js

pytestmark = pytest.mark.integration

PROMPTS = {
    "agent-alreadyon.ogg": (
        "That agent is already logged on. Please enter your agent number followed by the pound key."
    ),
    "all-circuits-busy-now.ogg": "All circuits are busy now.",
}
"""What tiny.en says to two of the held-out prompts."""


def export(source: Path, folder: Path, quantization: str) -> Path:
    values = {"format": ["onnx"], "quantization": [quantization], "output_dir": str(folder)}
    run(build(ExportConfig, model_name_or_path=str(source), **values))
    return folder


@pytest.fixture(scope="module")
def exported(tiny_en_dir, tmp_path_factory) -> Path:
    return export(tiny_en_dir, tmp_path_factory.mktemp("onnx") / "tiny.en", "fp32+q8")


@pytest.fixture(scope="module")
def exported_toy(teacher, tmp_path_factory) -> Path:
    return export(teacher, tmp_path_factory.mktemp("onnx") / "toy", "fp32")


def clip(recording: Path, runtime: OnnxRuntime) -> Clip:
    prompt = tuple(runtime.tokenizer.prompt(None, "transcribe", False))
    return Clip(name=recording.stem, samples_W=decode_audio(recording), language=None, prompt=prompt)


def our_logits(folder: Path, features_BMR: np.ndarray, tokens_BT: np.ndarray) -> np.ndarray:
    checkpoint = load_checkpoint(folder)

    @jax.jit
    def forward(params, features_BRM, tokens_BT):
        encoder = bind_encoder(checkpoint.config, ComputeOptions(), params["encoder"])
        decoder = bind_decoder(checkpoint.config, ComputeOptions(), params["decoder"])
        return decoder.logits(decoder(tokens_BT, encoder(features_BRM)[0]).hidden_BTD)

    return np.asarray(forward(checkpoint.params, features_BMR.transpose(0, 2, 1), tokens_BT))


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


def test_logits_are_ours_whether_tokens_come_together_or_one_by_one(teacher, exported_toy):
    """Those of real students are compared in ``test_proof.py``."""
    session, random = OnnxSession.open(exported_toy, "fp32"), np.random.default_rng(0)
    features_BMR = random.normal(size=(2, *session.features_shape[1:])).astype(np.float32)
    tokens_BT = random.integers(50_000, size=(2, 6)).astype(np.int32)
    encoder_out_BSD, cache = session.encode(features_BMR), {}
    logits = []
    for part in (slice(0, 3), slice(3, 4), slice(4, 6)):
        logits_BTV, cache = session.step(tokens_BT[:, part], encoder_out_BSD, cache)
        logits.append(logits_BTV)
    ours_BTV = our_logits(teacher, features_BMR, tokens_BT)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), ours_BTV, atol=1e-3)


def test_eight_bits_say_the_same_and_take_little_room(exported, prompts_dir):
    recording, text = next(iter(PROMPTS.items()))
    runtime = open_runtime(exported, "q8")
    assert runtime.transcribe(clip(prompts_dir / "validation" / recording, runtime)).strip() == text
    whole, quantized = (
        sum(path.stat().st_size for path in model_paths(exported, PRECISIONS[name]))
        for name in ("fp32", "q8")
    )
    assert quantized < 0.3 * whole


def test_in_eight_bits_a_window_is_rounded_by_itself(exported, prompts_dir):
    """Neither the other windows of a batch nor loud positions of its own make its rounding coarser."""
    runtimes = [open_runtime(exported, name) for name in ("fp32", "q8")]
    exact, quantized = (runtime.session.encode for runtime in runtimes)
    clips = [clip(prompts_dir / "validation" / name, runtimes[0]) for name in PROMPTS]
    features = [runtimes[0].features(one) for one in clips]
    both_BSD, exact_BSD = (encode(np.concatenate(features)) for encode in (quantized, exact))
    np.testing.assert_allclose(both_BSD, np.concatenate([quantized(one) for one in features]), atol=1e-4)
    assert np.square(both_BSD - exact_BSD).mean() < 0.04**2 * exact_BSD.var()


def test_weights_of_a_large_model_lie_in_files_beside_it(teacher, exported_toy, tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_FILE_SIZE", 100_000)
    divided = export(teacher, tmp_path / "divided", "fp32")
    settings = json.loads((divided / "config.json").read_text())["transformers.js_config"]
    for name, count in settings["use_external_data_format"].items():
        files = [f"{name}_data", *(f"{name}_data_{number}" for number in range(1, count))]
        assert count > 1
        assert sorted(file.name for file in (divided / "onnx").glob(f"{name}_data*")) == sorted(files)
        onnx.checker.check_model(str(divided / "onnx" / name), full_check=True)
    sessions = [OnnxSession.open(folder, "fp32") for folder in (exported_toy, divided)]
    features_BMR = np.random.default_rng(0).normal(size=sessions[0].features_shape).astype(np.float32)
    outs = [session.encode(features_BMR) for session in sessions]
    np.testing.assert_array_equal(outs[0], outs[1])
    logits = [session.step(np.array([[1, 2, 3]]), outs[0], {})[0] for session in sessions]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_transformers_js_says_what_we_say(exported, prompts_dir, tmp_path):
    transformers_js.skip_if_absent()
    samples = [decode_audio(prompts_dir / "validation" / name) for name in PROMPTS]
    outputs = transformers_js.transcribe(exported, "fp32", samples, tmp_path)
    assert [output["text"].strip() for output in outputs] == list(PROMPTS.values())
