"""The card of a model says what its run did, in metadata that huggingface_hub reads."""

import dataclasses
import json

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from flax_distil.core.errors import InputError
from flax_distil.distillation.publishing.card_subject import CardSubject
from flax_distil.distillation.publishing.card_text import card_text
from flax_distil.distillation.publishing.evaluation_table import read_eval_results, training_evaluations
from flax_distil.distillation.publishing.model_card import MARK, write_model_card
from flax_distil.distillation.publishing.run_summary import read_run_summary
from flax_distil.distillation.publishing.usage import RepositoryFormat, usage_sections

REPO = "someone/distil-large-v3-hi"
STUDENT = {
    "encoder_layers": 32, "decoder_layers": 2, "d_model": 1280, "parameters": 756_000_000,
    "window_seconds": 30.0, "decoder_layers_of_teacher": [0, 31],
}  # fmt: skip
TEACHER = STUDENT | {
    "name": "large-v3", "id": "openai/whisper-large-v3", "decoder_layers": 32, "parameters": 1_543_000_000
}  # fmt: skip
HOSTILE = "# <script>|x"
DATA_SETS = [
    {
        "use": "training", "name": "voices", "id": "mozilla/voices", "config": "hi", "split": "train",
        "language": "hindi", "license": "cc0-1.0",
    },
    {
        "use": "training", "name": HOSTILE, "id": None, "config": None, "split": None, "language": "en",
        "license": None,
    },
    {"use": "evaluation", "name": "fleurs", "id": "google/fleurs", "config": "hi_in", "split": "test"},
    {"use": "evaluation", "name": "calls", "id": None, "config": None, "split": None},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """What a run of twenty updates with two evaluations writes about itself."""
    settings = {"max_steps": 20, "learning_rate": 1e-4, "kl_weight": 0.8, "metric_for_best_model": "wer"}
    record = {
        "settings": settings, "models": {"student": STUDENT, "teacher": TEACHER}, "data_sets": DATA_SETS,
        "attempts": [{"devices": {"count": 8, "kind": "TPU v4"}}],
    }  # fmt: skip
    dropped = {"voices": {"kept": {"rows": 900, "seconds": 7200.0}, "no label": {"rows": 4, "seconds": 9.0}}}
    rates = {"audio_seconds_per_second": 90.0, "seconds_per_step": 4.0}
    lines = [{"step": step, "loss": 4.0 / step, "kl_loss": 1.0 / step, **rates} for step in (5, 10, 15, 20)]
    for step, wer in ((10, 12.345), (20, 14.0)):
        scores = {"eval_fleurs_wer": wer, "eval_fleurs_samples": 50.0, "eval_calls_wer": wer + 1}
        lines.append({"step": step, **scores, "eval_calls_samples": 20.0})
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "samples.json").write_text(json.dumps({"dropped": dropped}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.fixture
def subject(folder):
    run = read_run_summary(folder)
    return CardSubject(
        repository=REPO, model=STUDENT, is_multilingual=True, formats={"hf": RepositoryFormat()}, run=run,
        evaluated=training_evaluations(run), license="apache-2.0",
    )  # fmt: skip


def test_the_hub_reads_the_metadata_of_a_card(subject, tmp_path):
    write_model_card(subject, tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.language == ["hi", "en"]
    assert (data.license, data.base_model) == ("apache-2.0", "openai/whisper-large-v3")
    assert data.base_model_relation == "finetune"
    assert data.datasets == ["mozilla/voices"]
    assert (data.pipeline_tag, data.library_name) == ("automatic-speech-recognition", "transformers")
    assert {"whisper", "distillation"} <= {*data.tags}
    first, second = data.eval_results
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == (
        "google/fleurs",
        "hi_in",
        "test",
    )
    assert (first.metric_type, first.metric_value) == ("wer", 14.0)
    assert (second.dataset_name, second.metric_value) == ("calls", 15.0)


def test_evaluations_on_data_sets_of_the_hub_are_entries_that_it_reads(subject, tmp_path):
    write_model_card(subject, tmp_path)
    (path,) = (tmp_path / ".eval_results").iterdir()
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("google/fleurs", "hi_in", 14.0)
    assert "50 recordings of test" in entry.notes


def test_a_card_tells_hours_licenses_drops_and_what_was_not_measured(subject):
    text = card_text(subject)
    voices = "[mozilla/voices](https://huggingface.co/datasets/mozilla/voices)"
    assert f"| {voices} | hi / train | 900 | 2.00 | 4 | cc0-1.0 |" in text
    assert "|  |  | not measured |  | not stated |" in text
    assert "All updates together saw 2.00 hours of audio" in text
    assert "| decoder layers | 2, begun as layers 0, 31 of the teacher | 32 |" in text
    assert "| weight of the KL divergence | 0.8 |" in text
    assert "It was trained on 8 × TPU v4." in text
    assert "<script>" not in text


def test_a_card_of_a_run_without_a_divergence_tells_none(subject, tmp_path):
    settings = {**subject.run.settings, "kl_weight": 0.0, "temperature": 2.0}
    run = dataclasses.replace(subject.run, record={**subject.run.record, "settings": settings})
    write_model_card(dataclasses.replace(subject, run=run), tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| loss | 0.2000 |" in text
    assert "KL divergence" not in text
    assert "temperature" not in text
    assert "KL" not in (tmp_path / "learning_curve.svg").read_text()


def test_a_card_of_a_step_knows_nothing_of_what_came_later(folder):
    run = read_run_summary(folder, step=10)
    assert [found.wer for found in training_evaluations(run)] == [12.345, 13.345]
    assert run.points("loss")[-1] == (10.0, 0.4)
    assert read_run_summary(folder).best_step == 10


def test_a_card_of_somebody_else_stays(subject, tmp_path):
    write_model_card(subject, tmp_path / "none", existing="# Mine")
    assert not (tmp_path / "none").exists()
    write_model_card(subject, tmp_path, existing=f"---\n---\n{MARK}\n")
    assert MARK in (tmp_path / "README.md").read_text()


def test_plots_lie_beside_the_card(subject, tmp_path):
    write_model_card(subject, tmp_path)
    text = (tmp_path / "README.md").read_text()
    for name in ("learning_curve.svg", "word_error_rate.svg"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_text().startswith("<svg")


def test_only_formats_that_are_there_are_loaded_from_the_repository():
    text = usage_sections(REPO, {"hf": RepositoryFormat(), "ct2": RepositoryFormat(folder="ct2")})
    assert f'from_pretrained("{REPO}")' in text
    assert 'allow_patterns="ct2/*"' in text
    assert "### whisper.cpp" not in text
    assert f"--model_name_or_path {REPO} --format ggml,onnx,openai,mlx" in text
    onnx = {"onnx": RepositoryFormat(quantization="fp32+q8")}
    assert f'"{REPO}", {{ dtype: "q8" }})' in usage_sections(REPO, onnx)
    everything = {name: RepositoryFormat() for name in ("hf", "ct2", "ggml", "onnx", "openai", "mlx")}
    assert "### Other programs" not in usage_sections(REPO, everything)


def test_nothing_is_made_up_where_nothing_is_known(subject):
    bare = dataclasses.replace(subject, run=None, base="openai/whisper-tiny", evaluated=(), license=None)
    text = card_text(bare)
    assert "converted from [openai/whisper-tiny](https://huggingface.co/openai/whisper-tiny)" in text
    assert "No evaluation is recorded." in text
    assert "is not stated by whoever published it" in text
    assert "## Training" not in text


def results(models: dict[str, str]) -> dict:
    scores = {"wer": 7.0, "wer_interval": [6.0, 8.0], "samples": 80, "rtfx": 120.0}
    entry = {"data_sets": {"fleurs": {"clean": scores}}}
    names = {"dataset_name": "google/fleurs", "dataset_config_name": "hi_in", "dataset_split_name": "test"}
    return {
        "config": names,
        "baseline": next(iter(models)),
        "models": {name: entry | {"model_name_or_path": path} for name, path in models.items()},
    }  # fmt: skip


def test_the_figures_of_an_evaluation_are_those_of_the_model_of_the_card(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results({"teacher": "openai/whisper-large-v3", "mine": str(tmp_path)})))
    mine, teacher = read_eval_results(str(path), own=[str(tmp_path)])
    assert (mine.model, mine.data_set_id, mine.rtfx, mine.interval) == (
        None,
        "google/fleurs",
        120.0,
        (6.0, 8.0),
    )
    assert teacher.model == "teacher"
    path.write_text(json.dumps(results({"teacher": "a", "one": "b", "two": "c"})))
    with pytest.raises(InputError, match="none of them is the model that is exported"):
        read_eval_results(str(path), own=["d"])
    path.write_text("{}")
    with pytest.raises(InputError, match=r"is not the results\.json of `flax-distil eval`"):
        read_eval_results(str(path), own=["d"])
