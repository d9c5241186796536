"""Label, distil with a kill, evaluate and export in a bucket: the same bytes as on a local disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flax_distil.cli.main import main
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import AnyPath, output_path
from tests.storage.buckets import LARGE_BODIES, running_gs
from tests.toys import write_prompts, write_teacher

pytestmark = LARGE_BODIES


def run(command: str, **flags: object) -> None:
    assert main([*command.split(), *(f"--{name}={value}" for name, value in flags.items())]) == 0


def run_and_kill(flags: dict[str, object], folder: AnyPath, url: str) -> None:
    """Start a distillation in a process of its own, and kill it when it has saved its third step."""
    bucket = json.dumps({"endpoint_url": url, "token": "anon"})
    script = Path(__file__).parents[2] / "run_distillation.py"
    process = subprocess.Popen(
        [sys.executable, str(script), *(f"--{name}={value}" for name, value in flags.items())],
        env=os.environ | {"FSSPEC_GS": bucket, "FSSPEC_GCS": bucket},
    )
    while process.poll() is None and not (folder / "checkpoints/checkpoint_3").is_dir():
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def chain(root: AnyPath, teacher: Path, prompts: Path, *, killed_at: str | None = None) -> dict[str, bytes]:
    """Run commands that read what those before wrote; return the files that must not differ.

    Args:
        root: Folder of all outputs.
        teacher: Checkpoint of the teacher.
        prompts: Recordings and their texts.
        killed_at: Address of the server of the bucket, if the distillation is killed and started again.
    """
    run(
        "pseudo-label", model_name_or_path=teacher, dataset_name=prompts, output_dir=root / "labels",
        per_device_eval_batch_size=4, generation_max_length=8, samples_per_shard=3,
    )  # fmt: skip
    distil = {
        "teacher_model_name_or_path": teacher, "train_dataset_name": root / "labels",
        "student_decoder_layers": 1, "output_dir": root / "student", "per_device_train_batch_size": 2,
        "warmup_steps": 1, "learning_rate": 1e-2, "precision": "full", "logging_steps": 1, "save_steps": 1,
        "save_total_limit": 2, "export_dtype": "float32", "resume_from_checkpoint": "auto",
        "lr_scheduler_type": "constant_with_warmup", "max_steps": 12,
    }  # fmt: skip
    if killed_at is not None:
        run_and_kill(distil, root / "student", killed_at)
    run("distil", **distil)
    run(
        "eval", model_name_or_path=root / "student", dataset_name=prompts, output_dir=root / "report",
        per_device_eval_batch_size=4, generation_max_length=8, latency_samples=0,
    )  # fmt: skip
    run("export", model_name_or_path=root / "student", output_dir=root / "half", dtype="float16")
    labels = sorted((root / "labels" / "data").glob("*.parquet"), key=str)
    assert labels
    same = [
        root / "student/model.safetensors",
        root / "half/model.safetensors",
        root / "report/predictions.csv",
    ]
    return {str(path).removeprefix(str(root)): path.read_bytes() for path in [*labels, *same]}


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_every_output_in_a_bucket(rate, tiny_en_dir, prompts_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    teacher, prompts = write_teacher(tmp_path / "teacher", tiny_en_dir), write_prompts(tmp_path, prompts_dir)
    wanted = chain(tmp_path / "local", teacher, prompts)
    with running_gs(monkeypatch, rate=rate, seed=1) as proxy:
        found = chain(output_path("gs://bucket/work"), teacher, prompts, killed_at=proxy.url)
        names = list(BucketPath("gs://bucket/work").files())
    assert found == wanted
    assert {"student/metrics.jsonl", "student/goodput.json", "report/results.json"} <= set(names)
    assert any(name.startswith("student/tensorboard/events") for name in names)
    failed = sum(proxy.counts.values()) - proxy.counts["passed"]
    with capsys.disabled():
        print(f"\n{len(found)} files, {sum(map(len, found.values()))} bytes equal;", end=" ")
        print(f"{failed} of {sum(proxy.counts.values())} requests failed")
