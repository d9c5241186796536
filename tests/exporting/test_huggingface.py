"""Exports in transformers: nothing to warn about, old settings in the form of today, sharded at a size."""

import dataclasses
import json
import logging

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.exported_files import exported_files
from flax_distil.checkpoints.student import init_student
from flax_distil.cli.main import main
from flax_distil.exporting.formats import huggingface
from flax_distil.exporting.source import ExportSource

OWN_WORDS = "Passing `generation_config` together with generation-related arguments"
"""A warning that transformers 5.23 gives for arguments that its own Whisper code passes, for every model."""


@pytest.fixture(scope="module")
def export(base_dir, tmp_path_factory):
    """A shallow student of base, untrained, as float16."""
    student = init_student(load_checkpoint(base_dir), decoder_layers=2)
    folder = tmp_path_factory.mktemp("student")
    huggingface.write(ExportSource.from_checkpoint(student), folder, quantization="float16")
    return folder


@pytest.fixture
def warned(caplog):
    """What transformers warns about."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: [text for text in caplog.messages if OWN_WORDS not in text]
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("given", [{}, {"language": "en", "task": "transcribe"}])
def test_transformers_loads_and_generates_without_a_warning(export, few_prompts, warned, given):
    model = WhisperForConditionalGeneration.from_pretrained(export, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(export)
    features = processor(decode_audio(few_prompts[0]), sampling_rate=16000, return_tensors="pt")
    settings = model.generation_config
    settings.max_length = 12
    model.generate(features.input_features, **given)
    assert warned() == []
    layers = {layer for layer, _ in settings.alignment_heads}
    assert layers == {1}  # the teacher's last layer; it has heads in others, which the student lacks


def test_settings_of_old_files_are_written_in_the_form_of_today(base_dir):
    """As published in 2022: forced tokens, and nothing that ``language`` needs."""
    checkpoint = load_checkpoint(base_dir, config_only=True)
    old = {
        "forced_decoder_ids": [[1, 50261], [2, 50359], [3, 50363]],
        "max_length": 1000,
        "suppress_tokens": [],
    }
    files = dataclasses.replace(checkpoint.files, generation_config=old)
    found = exported_files(files, checkpoint.config, torch.zeros(1).numpy().dtype).generation_config
    assert "forced_decoder_ids" not in found
    assert (found["language"], found["task"], found["max_length"]) == ("de", "transcribe", 448)
    assert found["is_multilingual"]
    assert found["lang_to_id"]["<|de|>"] == 50261
    assert found["no_timestamps_token_id"] == 50363


def test_a_size_divides_the_weights_into_files_that_transformers_joins(tiny_en_dir, tmp_path):
    out = tmp_path / "out"
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]
    assert main([*command, "--max_shard_size", "20MB", "--dtype", "bfloat16"]) == 0
    sizes = [path.stat().st_size for path in out.glob("model-*.safetensors")]
    # The token embedding is larger than a file may be, and has one of its own.
    assert len(sizes) == 4
    assert sorted(sizes)[2] < 20_100_000 < 39_000_000 < sorted(sizes)[3]
    model, info = WhisperForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert {key: len(value) for key, value in info.items()} == dict.fromkeys(info, 0)
    assert model.dtype == torch.bfloat16
    index = json.loads((out / "model.safetensors.index.json").read_bytes())
    assert index["metadata"]["total_size"] == sum(2 * p.numel() for p in model.parameters())
