"""The commands in two processes of two devices, over loopback, do what they do in one of four."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from tests import quick_compilation
from tests.toys import USABLE_PROMPTS, write_prompts, write_teacher

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEVICES = 4


def start(script: str, flags: dict[str, object], *, devices: int) -> subprocess.Popen:
    arguments = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, ROOT / f"{script}.py", *arguments],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": " ".join(
                [f"--xla_force_host_platform_device_count={devices}", quick_compilation.FLAGS]
            ),
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, flags: dict[str, object], *, processes: int) -> list[str]:
    """Run a command in so many processes and return what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    for number in range(processes):
        where = {"coordinator_address": address, "num_processes": processes, "process_id": number}
        running.append(start(script, flags | (where if processes > 1 else {}), devices=DEVICES // processes))
    printed = [process.communicate(timeout=300) for process in running]
    for process, (_, errors) in zip(running, printed, strict=True):
        assert process.returncode == 0, errors
    return [out for out, _ in printed]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_en_dir, prompts_dir):
    folder = tmp_path_factory.mktemp("processes")
    return write_teacher(folder / "teacher", tiny_en_dir), write_prompts(folder, prompts_dir), folder


@pytest.fixture(scope="module")
def distilled(workplace):
    """Folders of a distillation in one process, and of one that goes on in two that divide the weights.

    The second begins in one process whose devices hold copies of the weights, and evaluates nothing there.
    One recording is damaged.
    """
    teacher, prompts, folder = workplace
    flags = {
        "teacher_model_name_or_path": teacher, "student_decoder_layers": 1, "train_dataset_name": prompts,
        "precision": "full", "warmup_steps": 0, "lr_scheduler_type": "constant", "logging_steps": 1,
        "adam_epsilon": 1e-2, "learning_rate": 1e-3, "export_dtype": "float32",
        "resume_from_checkpoint": "auto",
    }  # fmt: skip
    evaluated = flags | {
        "eval_dataset_name": prompts, "per_device_eval_batch_size": 1, "generation_max_length": 4,
        "max_steps": 3,
    }  # fmt: skip
    copies = {"parallelism": "pmap", "per_device_train_batch_size": 1}
    divided = {"mesh": "data=1,fsdp=2,tensor=2", "per_device_train_batch_size": 2}
    one, two = ({"output_dir": folder / f"student-{processes}"} for processes in (1, 2))
    run("run_distillation", evaluated | one | divided, processes=1)
    run("run_distillation", flags | two | copies | {"max_steps": 1}, processes=1)
    run("run_distillation", evaluated | two | divided, processes=2)
    return one["output_dir"], two["output_dir"]


def transcribing(teacher: Path, prompts: Path) -> dict[str, object]:
    """Return the flags of a job that transcribes the prompts."""
    return {
        "model_name_or_path": teacher, "dataset_name": prompts, "per_device_eval_batch_size": 1,
        "generation_max_length": 4,
    }  # fmt: skip


def metrics(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("name", ["loss", "kl_loss", "grad_norm", "eval_loss", "eval_wer", "eval_samples"])
def test_the_logs_of_two_processes_are_those_of_one(distilled, name):
    one, two = (metrics(folder, name) for folder in distilled)
    assert len(one) == (1 if name.startswith("eval") else 3)
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_the_student_of_two_processes_is_that_of_one(distilled):
    one, two = (load_file(folder / "model.safetensors") for folder in distilled)
    assert set(one) == set(two)
    for name, wanted in one.items():
        assert np.abs(two[name] - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1e-3), name


def test_every_usable_sample_is_evaluated_once(distilled):
    assert metrics(distilled[1], "eval_samples")[-1] == USABLE_PROMPTS
    assert metrics(distilled[1], "eval_skipped")[-1] == 1


@pytest.mark.slow
def test_pseudo_labeling_in_two_processes_writes_the_bytes_of_one(workplace):
    teacher, prompts, folder = workplace
    flags = transcribing(teacher, prompts) | {"samples_per_shard": 3}
    found = []
    for processes in (1, 2):
        output = folder / f"labels-{processes}"
        run("run_pseudo_label", flags | {"output_dir": output}, processes=processes)
        files = [path for path in output.rglob("*") if path.is_file() and path.name != "throughput.json"]
        found.append({path.relative_to(output): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert len([path for path in found[0] if path.suffix == ".parquet"]) == 3
    assert len(load_table(DatasetSpec(name=str(folder / "labels-2")))) == USABLE_PROMPTS


@pytest.mark.slow
def test_evaluation_in_two_processes_counts_every_sample_once_and_prints_once(workplace):
    teacher, prompts, folder = workplace
    flags = transcribing(teacher, prompts) | {"noise_types": "babble", "snr_db": 0}
    rows = []
    for processes in (1, 2):
        output = folder / f"report-{processes}"
        printed = run("run_eval", flags | {"output_dir": output}, processes=processes)
        # What connects the processes prints a line of its own.
        assert ["WER" in text for text in printed] == [True] + [False] * (processes - 1)
        rows.append(list(csv.DictReader((output / "predictions.csv").read_text().splitlines())))
    same = ("id", "condition", "prediction", "wer")
    one, two = ([[row[name] for name in same] for row in part] for part in rows)
    assert len(two) == 2 * USABLE_PROMPTS
    assert two == one


def test_a_mistake_on_the_main_process_ends_all_with_one_sentence(workplace):
    teacher, prompts, folder = workplace
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = {
        "model_name_or_path": teacher, "dataset_name": prompts, "output_dir": folder / "taken",
        "coordinator_address": address, "num_processes": 2,
    }  # fmt: skip
    running = [start("run_pseudo_label", flags | {"process_id": number}, devices=1) for number in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "is not empty" in errors
        assert "Traceback" not in errors
