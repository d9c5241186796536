"""A run pushes its student while it trains: a Hub that fails changes neither the run nor what arrives."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.core.signals import STOPPED
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.job import run
from flax_distil.distillation.publishing.publisher import Publisher
from tests.checkpoints.hub_server import TOKEN, Hub, retry_at_once, use_endpoint
from tests.toys import write_prompts

# huggingface_hub's own call of httpx, in the upload without Xet.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]

REPO = "someone/student"
STEPS = 6
PRIVATE = {"goodput.json", "run.json", "samples.json", "report.html"}


@pytest.fixture
def slow_training(hub: Hub, monkeypatch) -> None:
    """Training that takes longer than a push: after each save it goes on when the student has arrived."""
    saved = Publisher.saved

    def save_and_wait(self: Publisher, step: int) -> None:
        saved(self, step)
        while f"Student after step {step}" not in pushed(hub):
            assert self._background._thread.is_alive()
            time.sleep(0.01)

    monkeypatch.setattr(Publisher, "saved", save_and_wait)


@pytest.fixture(scope="module")
def settings(teacher, prompts_dir, tmp_path_factory):
    prompts = write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)

    def settings(folder: Path, **changes) -> DistillConfig:
        values = {
            "teacher_model_name_or_path": str(teacher), "train_dataset_name": str(prompts),
            "student_decoder_layers": 1, "per_device_train_batch_size": 2, "max_steps": STEPS,
            "warmup_steps": 1, "precision": "full", "logging_steps": 1, "save_steps": 2,
            "save_total_limit": 2, "dataloader_num_workers": 1, "output_dir": str(folder),
            "hub_token": TOKEN, "hub_model_id": REPO,
        }  # fmt: skip
        return build(DistillConfig, values | changes)

    return settings


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory) -> Path:
    """The folder of a run that pushes nothing."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    run(settings(folder))
    return folder


def losses(folder: Path) -> list[tuple]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["kl_loss"], line["grad_norm"]) for line in lines]


def digests(folder: Path, *, below: str = "") -> dict[str, str]:
    """Return the SHA-256 of every file that belongs into the repository, by its name there."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name not in PRIVATE]
    paths += [path for path in (folder / below).rglob("*") if below and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: hashlib.sha256(content).hexdigest() for name, content in names.items()}


def arrived(hub: Hub) -> dict[str, str]:
    """Return the same of what the repository holds; one file goes on being written after the upload."""
    files = hub.commit(REPO, "main").files
    return {name: digest for name, digest in files.items() if name != "goodput.json"}


def pushed(hub: Hub) -> list[str]:
    return [commit.message for commit in hub.commits if commit.message.startswith("Student after")]


def test_the_student_of_each_save_arrives_although_requests_fail_and_uploads_are_cut(
    hub: Hub, slow_training, settings, alone, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    hub.failing_share, hub.cut_uploads = 0.3, 2
    result = run(settings(tmp_path / "run", push_to_hub=True, hub_strategy="every_save"))
    assert result.upload_error is None
    assert hub.cut_uploads == 0
    assert arrived(hub) == digests(tmp_path / "run")
    assert losses(tmp_path / "run") == losses(alone)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
    assert pushed(hub) == [f"Student after step {step}" for step in (2, 4, 6)]
    assert TOKEN not in caplog.text
    assert not (tmp_path / "run" / ".publishing").exists()


@pytest.mark.slow
def test_a_pushed_student_is_that_of_its_step(hub: Hub, slow_training, settings, tmp_path):
    run(settings(tmp_path / "run", push_to_hub=True, hub_strategy="every_save", hub_revision="trial"))
    assert "model.safetensors" not in hub.commit(REPO, "main").files
    for commit in hub.commits:
        if commit.message == "Student after step 4":
            weights = hub.blobs[commit.files["model.safetensors"]]
            lines = hub.blobs[commit.files["metrics.jsonl"]].decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    flags = [f"--model={tmp_path / 'run'}", f"--output_dir={tmp_path / 'copy'}", "--checkpoint=4"]
    assert main(["export", *flags]) == 0
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == weights
    (tmp_path / "pushed.safetensors").write_bytes(weights)
    early, final = load_file(tmp_path / "pushed.safetensors"), load_file(tmp_path / "run/model.safetensors")
    name = "model.decoder.layers.0.fc1.weight"
    assert np.array_equal(early["model.encoder.conv1.weight"], final["model.encoder.conv1.weight"])
    assert not np.array_equal(early[name], final[name])


@pytest.mark.slow
def test_checkpoints_go_up_whole_and_training_goes_on_from_them(hub: Hub, settings, tmp_path):
    run(settings(tmp_path / "run", push_to_hub=True, hub_strategy="all_checkpoints"))
    files = hub.commit(REPO, "main").files
    there = digests(tmp_path / "run", below="checkpoints")
    assert {name: files[name] for name in there} == there
    copy = tmp_path / "copy"
    for name in files:
        if name.startswith("checkpoints/") or name == "metrics.jsonl":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(hub.file(REPO, name))
    again = run(settings(copy, max_steps=STEPS + 1, resume_from_checkpoint="latest", hub_model_id=None))
    assert again.steps == STEPS + 1


@pytest.mark.slow
def test_with_the_strategy_end_there_is_one_commit(hub: Hub, settings, tmp_path):
    run(settings(tmp_path / "run", push_to_hub=True))
    assert [commit.message for commit in hub.commits] == ["initial commit", "Upload a distilled Whisper"]


@pytest.mark.slow
def test_a_push_that_failed_while_training_is_made_up_for_at_the_end(
    hub: Hub, settings, alone, tmp_path, caplog, monkeypatch
):
    finish = "flax_distil.checkpoints.hub.background_push.BackgroundPush.finish"
    hub.refuse_commits = True

    def mend(self) -> None:
        self._end()
        self._thread.join()
        hub.refuse_commits = False

    monkeypatch.setattr(finish, mend)
    result = run(settings(tmp_path / "run", push_to_hub=True, hub_strategy="every_save"))
    assert result.upload_error is None
    assert "training goes on, and a later push makes up for it" in caplog.text
    assert not pushed(hub)
    assert arrived(hub) == digests(tmp_path / "run")
    assert losses(tmp_path / "run") == losses(alone)


@pytest.mark.slow
def test_a_hub_that_is_away_all_the_time_costs_no_step(settings, alone, tmp_path, monkeypatch, caplog):
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    retry_at_once(monkeypatch)
    result = run(settings(tmp_path / "run", push_to_hub=True, hub_strategy="every_save"))
    assert result.upload_error is not None
    assert f"the export is safe in {tmp_path / 'run'}, to be uploaded with: hf upload" in result.upload_error
    assert losses(tmp_path / "run") == losses(alone)
    assert "the upload is tried at the end" in caplog.text


def test_checkpoints_in_a_bucket_are_not_promised_to_the_hub(hub: Hub, settings):
    with pytest.raises(InputError, match="choose every_save, or name a folder here"):
        run(settings("gs://bucket/run", push_to_hub=True, hub_strategy="all_checkpoints"))


@pytest.mark.slow
def test_a_run_that_is_stopped_does_not_wait_for_the_hub(hub: Hub, settings, tmp_path):
    hub.stalled_uploads = True
    config = settings(tmp_path / "run")
    flags = {
        "teacher_model_name_or_path": config.teacher.teacher_model_name_or_path,
        "train_dataset_name": config.data.train_dataset_name, "student_decoder_layers": 1,
        "per_device_train_batch_size": 2, "max_steps": 100_000, "precision": "full", "save_steps": 2,
        "output_dir": tmp_path / "run", "hub_model_id": REPO, "hub_strategy": "every_save",
    }  # fmt: skip
    log = tmp_path / "log.txt"  # not a pipe, which would be full at some step if nobody read it
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "flax_distil.cli.main", "distil", "--push_to_hub",
                *(f"--{name}={value}" for name, value in flags.items()),
            ],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"},
            stderr=errors,
        )  # fmt: skip
    try:
        latest = time.monotonic() + 300
        while not any(request.startswith("PUT") for request in hub.requests):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < latest, (hub.requests, log.read_text())
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        process.wait(timeout=80)
    finally:
        process.kill()
    error = log.read_text()
    assert process.returncode == STOPPED, error
    # huggingface_hub itself asks six times, and waits 10 s for each answer: 83 s with its pauses.
    assert time.monotonic() - start < 60
    assert "is saved, and the same command goes on" in error
    assert [commit.message for commit in hub.commits] == ["initial commit"]
