"""A run that is stopped by signals and started again is the run that was not stopped."""

import json
import os
import signal
from pathlib import Path

import pytest

from flax_distil.cli.main import main
from flax_distil.core.signals import STOPPED
from flax_distil.distillation import job
from flax_distil.distillation.evaluation.evaluator import Evaluator
from flax_distil.distillation.monitoring.step_metrics import StepMetrics
from tests.toys import write_prompts, write_teacher


@pytest.fixture(scope="module")
def flags(tmp_path_factory, tiny_en_dir, prompts_dir) -> list[str]:
    folder = tmp_path_factory.mktemp("stopped")
    prompts = write_prompts(folder, prompts_dir)
    given = {
        "teacher_model_name_or_path": write_teacher(folder / "teacher", tiny_en_dir),
        "student_decoder_layers": 1, "train_dataset_name": prompts, "eval_dataset_name": prompts,
        "precision": "full", "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
        "max_steps": 6, "warmup_steps": 0, "logging_steps": 1, "eval_steps": 4, "generation_max_length": 4,
        "export_dtype": "float32",
    }  # fmt: skip
    return ["distil", *(f"--{name}={value}" for name, value in given.items())]


def stop_at(patch: pytest.MonkeyPatch, owner: type, name: str, number: int, *, call: int) -> None:
    """Send a signal to this process when a method is called for the nth time."""
    method, calls = getattr(owner, name), []

    def stopping(*args, **options):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return method(*args, **options)

    patch.setattr(owner, name, stopping)


def metrics(folder: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line[name]) for line in lines if name in line]
    assert len(found) == len(dict(found)), "a step was done twice"
    return dict(found)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_an_evaluation_goes_on_as_if_it_had_not_been(flags, tmp_path, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*flags, f"--output_dir={whole}"]) == 0
    again = [*flags, f"--output_dir={stopped}", "--resume_from_checkpoint=auto"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, Evaluator, "_run_batch", signal.SIGINT, call=1)
        assert main(again) == STOPPED
    assert "stopped by SIGINT: the evaluation is left" in capsys.readouterr().err
    assert metrics(stopped, "eval_wer") == {}
    assert list(metrics(stopped, "loss")) == [1, 2, 3, 4]
    assert main(again) == 0
    for name in ("loss", "eval_loss", "eval_wer"):
        assert metrics(stopped, name) == metrics(whole, name)
    name = "model.safetensors"
    assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_what_was_done_before_a_signal_is_saved(flags, tmp_path, capsys, monkeypatch):
    stop_at(monkeypatch, StepMetrics, "add", signal.SIGTERM, call=2)
    assert main([*flags, f"--output_dir={tmp_path / 'student'}"]) == STOPPED
    (step,) = [line for line in capsys.readouterr().err.splitlines() if "is saved" in line]
    number = step.split()[4]
    assert step == f"stopped by SIGTERM: step {number} is saved, and the same command goes on"
    assert number in ("2", "3")
    names = [path.name for path in (tmp_path / "student" / "checkpoints").iterdir()]
    assert f"checkpoint_{number}" in names


def test_a_run_that_is_stopped_while_it_starts_leaves_no_traceback(flags, tmp_path, capsys, monkeypatch):
    stop_at(monkeypatch, job, "load_models", signal.SIGTERM, call=1)
    assert main([*flags, f"--output_dir={tmp_path / 'student'}"]) == STOPPED
    assert capsys.readouterr().err.strip().startswith("stopped by SIGTERM: what is finished is kept")
