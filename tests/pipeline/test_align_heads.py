"""Alignment heads of a student: found, written, and read by the programs of others."""

import json
import shutil

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.pipeline.align_heads.config import AlignHeadsConfig
from flax_distil.pipeline.align_heads.job import run
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from tests.transcription.models import Model

STRAY = [[0, 0], [3, 1]]  # the second is of a layer that students of two layers lack


def named_heads(folder):
    return json.loads((folder / "generation_config.json").read_text())["alignment_heads"]


@pytest.fixture(scope="module")
def student_dir(tiny_en_dir, tmp_path_factory):
    """A student whose settings name the first head, which does not follow the speech, and one it lacks."""
    folder = tmp_path_factory.mktemp("students") / "student"
    student = init_student(load_checkpoint(tiny_en_dir), decoder_layers=2)
    export_checkpoint(student.params, student.config, folder, files=student.files, dtype="float32")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"alignment_heads": STRAY}))
    return folder


def config_of(student, teacher, **options):
    return build(
            AlignHeadsConfig,
        model_name_or_path=str(student), teacher_model_name_or_path=str(teacher),
        **{"dataset_name": "examples/asterisk_prompts/validation"} | options,
    )  # fmt: skip


def test_a_teacher_of_another_vocabulary_is_refused(tiny_en_dir, base_dir):
    with pytest.raises(
        InputError, match=r"the vocabularies of .*tiny.en \(51864 ids\) and .*base \(51865\) differ"
    ):
        run(config_of(base_dir, tiny_en_dir))


def test_a_student_whose_settings_cannot_be_changed_needs_an_output_dir(tiny_en_dir, tmp_path):
    with pytest.raises(InputError, match=r"is no Hugging Face folder .* set output_dir"):
        run(config_of(tmp_path, tiny_en_dir))


@pytest.fixture(scope="module")
def result(student_dir, tiny_en_dir):
    before = {path.name: path.read_bytes() for path in student_dir.iterdir()}
    options = {"max_samples": 12, "per_device_eval_batch_size": 6, "generation_max_length": 40}
    result = run(config_of(student_dir, tiny_en_dir, **options))
    after = {path.name: path.read_bytes() for path in student_dir.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"generation_config.json"}
    assert before.keys() == after.keys()
    return result


@pytest.mark.slow
def test_they_are_better_than_those_the_student_had(result, student_dir):
    assert named_heads(student_dir) == [list(pair) for pair in result.heads]
    assert result.after.mean_seconds < 0.8 * result.before.mean_seconds
    assert all(layer < 2 for layer, _ in result.heads)


@pytest.mark.slow
def test_our_own_words_are_read_from_them(result, student_dir, prompts_dir):
    transcriber = Model.open(student_dir).transcriber(word_timestamps=True, max_new_tokens=20)
    assert transcriber.generator.settings.alignment_heads == result.heads


@pytest.mark.slow
def test_transformers_reads_token_timestamps(result, student_dir, prompts_dir):
    model = WhisperForConditionalGeneration.from_pretrained(student_dir, attn_implementation="eager")
    processor = WhisperProcessor.from_pretrained(student_dir)
    samples_W = decode_audio(prompts_dir / "validation/please-try-call-later.ogg")
    features = processor(samples_W, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
    with torch.no_grad():
        said = model.generate(
            features.input_features, attention_mask=features.attention_mask,
            return_token_timestamps=True, min_new_tokens=8, max_new_tokens=20,
        )  # fmt: skip
    times = said["token_timestamps"][0].numpy()
    assert len(times) == said["sequences"].shape[1]
    assert (np.diff(times) >= 0).all()
    assert times[-1] > 0


@pytest.mark.slow
def test_faster_whisper_reads_word_timestamps(result, student_dir, prompts_dir, tmp_path):
    converter = ctranslate2.converters.TransformersConverter(
        str(student_dir), copy_files=["tokenizer.json", "preprocessor_config.json"]
    )
    folder = tmp_path / "converted"
    converter.convert(str(folder), quantization="float32")
    assert json.loads((folder / "config.json").read_text())["alignment_heads"] == [
        list(pair) for pair in result.heads
    ]
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=2)
    samples_W = decode_audio(prompts_dir / "validation/please-try-call-later.ogg")
    segments, _ = model.transcribe(samples_W, word_timestamps=True, max_new_tokens=20, temperature=0.0)
    words = [word for segment in segments for word in segment.words]
    assert words
    assert words[-1].end <= len(samples_W) / 16000 + 0.1


@pytest.mark.slow
def test_the_student_is_written_elsewhere_if_asked(result, student_dir, tiny_en_dir, tmp_path):
    copy = shutil.copytree(student_dir, tmp_path / "copy")
    options = {"max_samples": 4, "per_device_eval_batch_size": 6, "generation_max_length": 40}
    written = run(config_of(copy, tiny_en_dir, output_dir=str(tmp_path / "out"), **options))
    special = WhisperTokenizer.from_pretrained(tmp_path / "out").special
    settings = GenerationSettings.from_folder(tmp_path / "out", special)
    assert settings.alignment_heads == written.heads
    assert named_heads(copy) == named_heads(student_dir)
    weights = [folder / "model.safetensors" for folder in (tmp_path / "out", copy)]
    assert weights[0].stat().st_size == weights[1].stat().st_size
