"""Starting, continuing and ending a run: one command line for all, the best model, saves that fail."""

import json
import logging
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.distillation.config import CheckpointingConfig, DistillConfig
from flax_distil.distillation.evaluation.evaluator import Evaluator
from flax_distil.distillation.job import run as run_distillation
from flax_distil.distillation.saving.best_model import BestModel, check_metric
from flax_distil.distillation.saving.save_schedule import SaveSchedule
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.job import run as run_export
from flax_distil.storage import run_lock
from tests.toys import compilations, write_prompts

pytestmark = pytest.mark.integration

WERS = {2: 50.0, 4: 20.0, 6: 30.0}


@pytest.fixture(scope="module")
def prompts(prompts_dir, tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)


@pytest.fixture
def settings(teacher, prompts, tmp_path):
    def settings(**changes):
        values = {
            "teacher_model_name_or_path": str(teacher), "train_dataset_name": str(prompts),
            "student_decoder_layers": 1, "per_device_train_batch_size": 2, "max_steps": 6, "warmup_steps": 1,
            "learning_rate": 1e-2, "precision": "full", "save_steps": 0, "save_total_limit": 1,
            "export_dtype": "float32", "output_dir": str(tmp_path / "run"), "resume_from_checkpoint": "auto",
        }  # fmt: skip
        return build(DistillConfig, values | changes)

    return settings


def steps_in(folder):
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    return sorted(int(name.rpartition("_")[2]) for name in names)


def decoder(folder):
    return load_file(folder / "model.safetensors")["model.decoder.embed_tokens.weight"]


def exported(run, folder, which):
    values = {
        "model_name_or_path": str(run),
        "checkpoint": which,
        "output_dir": str(folder),
        "dtype": "float32",
    }
    run_export(build(ExportConfig, values))


def test_one_command_starts_continues_and_completes_a_run_and_exports_its_best_model(
    settings, prompts, teacher, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, logger="flax_distil")
    evaluated = []

    def evaluate(self, params):
        evaluated.append(2 * len(evaluated) + 2)
        return {"prompts": {"wer": WERS[evaluated[-1]]}}

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    evaluation = {"eval_dataset_name": str(prompts), "eval_steps": 2, "load_best_model_at_end": True}
    evaluation["lr_scheduler_type"] = "constant"
    folder = tmp_path / "run"
    (folder / "checkpoints" / "checkpoint_2.orbax-checkpoint-tmp").mkdir(parents=True)  # of a killed start
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.1)
    (folder / "run.lock").write_text("{}")  # its holder writes no more
    # As if the run had been killed after it had saved step 4, and before it evaluated that.
    run_distillation(settings(max_steps=4, **evaluation))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if "eval_wer" not in line or json.loads(line)["step"] < 4]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in kept))
    evaluated.pop()
    config = settings(**evaluation)
    run_distillation(config)
    assert evaluated == [2, 4, 6]
    assert steps_in(folder) == [4, 6]
    assert "the best model is exported: wer 20 at step 4" in caplog.text
    with TrainingCheckpoints(folder / "checkpoints", read_only=True) as checkpoints:
        record = checkpoints.read_record()
    assert record["about"]["best"] == {"metric": "wer", "step": 4, "value": 20.0}
    assert record["about"]["config"]["optimizer"]["learning_rate"] == 1e-2
    assert {"config_hash", "versions", "student"} <= record["about"].keys()
    best = decoder(folder)
    exported(folder, tmp_path / "best", "best")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    (folder / "model.safetensors").unlink()
    with compilations() as compiled:
        result = run_distillation(config)  # only the export is missing
    assert "train_step" not in " ".join(compiled)
    assert (result.steps, result.evaluation) == (6, {"prompts": {"wer": 30.0}})
    assert len(evaluated) == 3
    np.testing.assert_array_equal(decoder(folder), best)
    run_distillation(settings(resume_from_checkpoint="6", **(evaluation | {"load_best_model_at_end": False})))
    assert not np.array_equal(decoder(folder), best)
    teacher.rename(tmp_path / "gone")  # the export in the folder has the weights that were not trained
    try:
        exported(folder, tmp_path / "latest", "latest")
        np.testing.assert_array_equal(decoder(tmp_path / "latest"), decoder(folder))
        (folder / "model.safetensors").unlink()
        sentence = "holds trained weights only, and the others cannot be had"
        with pytest.raises(InputError, match=sentence):
            exported(folder, tmp_path / "none", "6")
    finally:
        (tmp_path / "gone").rename(teacher)
    with pytest.raises(InputError, match="checkpoint 6 is beyond max_steps 5"):
        run_distillation(settings(max_steps=5, **evaluation))


def test_a_run_whose_saves_all_fail_exports_its_model_and_says_so(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flax_distil.distillation.saving.finish._PAUSES", (0,))
    config = settings(max_steps=2, save_steps=1)
    flags = [
        f"--{name}={value}"
        for name, value in {
            "teacher_model_name_or_path": config.teacher.teacher_model_name_or_path,
            "train_dataset_name": config.data.train_dataset_name, "max_steps": 2, "warmup_steps": 0,
            "student_decoder_layers": 1, "per_device_train_batch_size": 2, "save_steps": 1,
            "output_dir": tmp_path / "run", "precision": "full",
        }.items()
    ]  # fmt: skip

    def refuse(self, needed):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrainingCheckpoints, "_check_room", refuse)
    assert main(["distil", *flags]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "checkpoint 2 in" in errors[0]
    assert "No space left on device" in errors[0]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    shutil.rmtree(tmp_path / "run" / "checkpoints")


class Clock:
    seconds = 0.0

    def monotonic(self):
        return self.seconds


def test_saves_are_due_by_steps_by_minutes_and_after_failures_with_growing_pauses(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("flax_distil.distillation.saving.save_schedule.time", clock)
    with TrainingCheckpoints(tmp_path) as checkpoints:
        schedule = SaveSchedule(CheckpointingConfig(save_steps=5, save_minutes=2.0), checkpoints)
        assert [step for step in range(1, 11) if schedule.is_due(step)] == [5, 10]
        clock.seconds = 121
        assert schedule.is_due(11)
        schedule.restart()
        assert not schedule.is_due(12)
        clock.seconds = 0
        schedule = SaveSchedule(CheckpointingConfig(save_steps=0), checkpoints)
        checkpoints.failure = "the disk is full"
        tries = []
        for clock.seconds in range(0, 600, 10):
            if schedule.is_due(7):
                tries.append(clock.seconds)
                schedule.restart()
        assert tries == [30, 90, 210, 450]


def test_the_best_evaluation_is_the_first_of_equals_by_the_metric_asked_for():
    best = BestModel("wer")
    sets = ("a", "b")
    for step, wers in {10: (30.0, 10.0), 20: (math.nan, 1.0), 30: (5.0, 7.0), 40: (7.0, 5.0)}.items():
        best.update(step, {name: {"wer": wer} for name, wer in zip(sets, wers, strict=True)})
    assert (best.step, best.value) == (30, 6)
    accuracy = BestModel("eval_b_accuracy")
    for step, value in {10: 0.1, 20: 0.3, 30: 0.2}.items():
        accuracy.update(step, {"a": {"accuracy": 1 - value}, "b": {"accuracy": value}})
    assert (accuracy.step, accuracy.value) == (20, 0.3)
    check_metric("eval_b_accuracy", sets)
    with pytest.raises(InputError, match="metric_for_best_model 'c_wer' is unknown"):
        check_metric("c_wer", sets)
