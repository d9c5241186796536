"""A run is killed at twenty random moments, each time continued by the same command, and ends the same."""

import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.core.tree import flatten
from flax_distil.distillation.monitoring.training_log import read_metrics
from tests.toys import write_prompts

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent.parent / "run_distillation.py"
STEPS, KILLS = 60, 20
SECONDS = 240
"""Longest time that one attempt may take."""


@pytest.fixture(scope="module")
def command(teacher, prompts_dir, tmp_path_factory) -> Callable[[Path], subprocess.Popen]:
    """Return a function that starts the run in a folder; compiled programs are kept between attempts."""
    folder = tmp_path_factory.mktemp("killed")
    prompts = write_prompts(folder, prompts_dir)
    flags = {
        "teacher_model_name_or_path": teacher, "train_dataset_name": prompts, "student_decoder_layers": 1,
        "per_device_train_batch_size": 2, "max_steps": STEPS, "warmup_steps": 5, "learning_rate": 1e-2,
        "precision": "full", "dropout": 0.1, "logging_steps": 1, "save_steps": 3, "export_dtype": "float32",
        "eval_dataset_name": prompts, "max_eval_samples": 3, "per_device_eval_batch_size": 2,
        "eval_steps": 20, "generation_max_length": 8, "load_best_model_at_end": "true",
        "metric_for_best_model": "loss", "resume_from_checkpoint": "auto",
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    environment = os.environ | {"FLAX_DISTIL_COMPILATION_CACHE": str(folder / "programs")}

    def start(output_dir: Path) -> subprocess.Popen:
        log = (output_dir.parent / f"{output_dir.name}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, str(SCRIPT), *arguments, f"--output_dir={output_dir}"],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    return start


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(folder) if "loss" in line}


def last_step(folder: Path) -> int:
    return max(losses(folder), default=0)


def moment(kind: str, folder: Path, chance: random.Random) -> Callable[[], bool]:
    """Return a function that tells whether the moment for a kill has come."""
    delay, begin, first = chance.random(), time.monotonic(), last_step(folder)
    seen: list[float] = []
    log = folder.parent / f"{folder.name}.log"
    said = len(log.read_text()) if log.exists() else 0

    def has_begun() -> bool:
        if kind == "starting":
            return time.monotonic() > begin + 6 * delay
        if kind == "training":
            return last_step(folder) > first + 5 * delay
        if kind == "saving":
            return any((folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))
        if kind == "evaluating":  # the losses of its step are logged just before
            lines = read_metrics(folder)
            is_due = bool(lines) and "eval_loss" not in lines[-1] and lines[-1]["step"] % 20 == 0
            return is_due and (last_step(folder) > first or "resuming after" in log.read_text()[said:])
        return any(folder.glob(".export-*"))

    def has_come() -> bool:
        if not seen and has_begun():
            seen.append(time.monotonic())
        wait = {"saving": 0.02, "evaluating": 2.0, "exporting": 0.01}.get(kind, 0) * delay
        return bool(seen) and time.monotonic() >= seen[0] + wait

    return has_come


def kill_at(process: subprocess.Popen, has_come: Callable[[], bool]) -> bool:
    """Kill a process when the moment comes; return whether it came before the end of the process."""
    end = time.monotonic() + SECONDS
    while process.poll() is None:
        assert time.monotonic() < end, "an attempt hangs"
        if has_come():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.001)
    assert process.returncode == 0
    return False


def results(folder: Path) -> tuple[dict[str, np.ndarray], bytes]:
    with TrainingCheckpoints(folder / "checkpoints", read_only=True) as checkpoints:
        params = flatten(checkpoints.restore_branch("params", STEPS))
    return {name: np.asarray(leaf) for name, leaf in params.items()}, (
        folder / "model.safetensors"
    ).read_bytes()


def assert_same(folder: Path, expected: tuple[dict[str, np.ndarray], bytes]) -> None:
    params, exported = results(folder)
    for name, leaf in expected[0].items():
        np.testing.assert_array_equal(params[name], leaf, err_msg=name)
    assert exported == expected[1]


def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(command, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert command(whole).wait(SECONDS) == 0
    expected, chance = results(whole), random.Random(16)
    kinds = ["starting"] * 4 + ["training"] * 5 + ["saving"] * 5 + ["evaluating"] * 3
    chance.shuffle(kinds)
    kinds = ["starting", "saving", *kinds[:-2], "exporting", "exporting", "exporting"]
    assert len(kinds) == KILLS
    kills: collections.Counter[str] = collections.Counter()
    ends = 0
    while kinds:
        process = command(folder)
        if kill_at(process, moment(kinds[0], folder, chance)):
            kills[kinds.pop(0)] += 1
        else:
            assert_same(folder, expected)
            shutil.rmtree(folder)
            ends += 1
            assert ends < 5, f"the moment for {kinds[0]} does not come"
    assert command(folder).wait(SECONDS) == 0
    assert_same(folder, expected)
    losses = [
        {line["step"]: line["loss"] for line in read_metrics(run) if "loss" in line}
        for run in (whole, folder)
    ]
    assert losses[0] == losses[1]
    print(f"\n{kills.total()} kills: {dict(kills)}; parameters and export are identical to the last bit")
