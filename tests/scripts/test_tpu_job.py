"""The supervisor of TPUs against a stand-in for gcloud that refuses, preempts and fails to delete."""

import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from flax_distil.distillation.monitoring.training_log import read_metrics
from tests.toys import write_prompts

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
STAND_IN = Path(__file__).with_name("stand_in_gcloud.py")
SECRET = "a-word-that-nobody-may-see"
JOB = """
import os, signal, sys, time
steps = os.environ["BUCKET"] + "/steps-" + os.environ["HOME"][-1]
done = len(open(steps).read().split()) if os.path.exists(steps) else 0
assert os.environ["SECRET_WORD"], "the secret did not come"
print("begins after", done, "with", os.environ["SECRET_WORD"], flush=True)
def save(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
while done < int(os.environ["STEPS"]):
    done += 1
    open(steps, "a").write(f"{done} ")
    print("step", done, flush=True)
    if done == int(os.environ.get("STOP_AT", 0)):
        save()
    while f"{os.environ['HOME'][-8:-2]}:{done}" in os.environ.get("HANG_AT", ""):
        time.sleep(1)  # until this machine is taken away
print("the last line has no end", end="", flush=True)
sys.exit(int(os.environ.get("CODE", 0)))
"""


class Cloud:
    """A folder that stands for Google Cloud, and the supervisor run against it."""

    def __init__(self, folder: Path):
        self.folder, self.bucket = folder, folder / "bucket"
        self.bucket.mkdir()
        (folder / "job.py").write_text(JOB)
        (folder / "bin").mkdir()
        quick = f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -IS '
        for name, script in (("gcloud", f'"{STAND_IN}" '), ("python3", "")):
            (folder / "bin" / name).write_text(f'{quick}{script}"$@"\n')
            (folder / "bin" / name).chmod(0o755)
        self.plan()

    def plan(self, **plan) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def start(
        self, *flags: str, steps: int = 30, command: tuple[str, ...] = (), **variables
    ) -> subprocess.Popen:
        environment = {
            **os.environ, "STAND_IN": str(self.folder), "SECRET_WORD": SECRET,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        env = {"BUCKET": self.bucket, "STEPS": steps, **variables}
        pauses = ["--poll_seconds", "0.1", "--retry_seconds", "0.01"]
        words = [
            sys.executable, str(SCRIPTS / "tpu_job.py"), "--name", "student", "--accelerator_type", "v4-8",
            "--secret", "SECRET_WORD", *pauses, *(f"--env={name}={value}" for name, value in env.items()),
            *(flags if "--zones" in flags else ("--zones", "zone-a", *flags)),
            "--", *(command or (sys.executable, str(self.folder / "job.py"))),
        ]  # fmt: skip
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *flags: str, **options) -> tuple[int, str]:
        process = self.start(*flags, **options)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self, verb: str = "") -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        every = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [words for words in every if verb in ("", words[3])]

    def state(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())

    def steps(self) -> list[list[int]]:
        return [list(map(int, path.read_text().split())) for path in sorted(self.bucket.glob("steps-*"))]


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    return Cloud(tmp_path)


def test_a_command_comes_to_its_end_through_preemptions_and_no_secret_is_seen(cloud):
    cloud.plan(workers=2, looks=2, preemptions=[5, 40], failing_deletes=1)
    moments = {"STOP_AT": 20, "HANG_AT": "home-1:5 home-2:40"}
    code, output = cloud.run("--spot", "--all_logs", steps=60, **moments)
    assert code == 0, output
    assert cloud.steps() == [list(range(1, 61))] * 2  # every step once, on both workers
    state = cloud.state()
    assert (state["made"], state["preempted"], state["nodes"]) == (3, 2, {})
    assert "was not deleted, trying again" in output
    assert output.count("the TPU is PREEMPTED: restart") == 2
    assert output.count("the command stopped before its end: restart") == 1
    assert all("--spot" in words for words in cloud.calls("create"))
    assert "[1] begins after 40 with ***" in output
    assert "[0] the last line has no end\n" in output
    log = (cloud.folder / "student.log").read_text()
    assert log == output
    assert SECRET not in log + json.dumps(cloud.calls())
    kept = [path for path in cloud.folder.glob("home-*/**/*") if path.is_file()]
    assert len(kept) > 10
    assert not [path for path in kept if SECRET in path.read_text() and path.name != "log"]


def test_a_log_is_shown_once_and_in_order(cloud):
    code, output = cloud.run(steps=150)
    assert code == 0
    assert [line for line in output.splitlines() if line.startswith("step")] == [
        f"step {n}" for n in range(1, 151)
    ]


def test_a_dry_run_prints_every_command_and_runs_none(cloud):
    code, output = cloud.run("--dry_run", "--install", "git+https://example.org/flax_distil", "--queued")
    assert (code, cloud.calls()) == (0, [])
    commands = [line.split()[5] for line in output.splitlines() if line.startswith("$ gcloud compute tpus")]
    assert commands[:5] == ["describe", "describe", "create", "describe", "ssh"]
    assert commands[5:12] == ["scp", "ssh", "describe", "scp", "ssh", "ssh", "ssh"]
    assert commands[12:] == ["describe", "delete", "describe", "describe"]
    assert "uv pip install --quiet --python venv 'flax-distil[tpu,gcs] @ git+https://" in output
    assert '"SECRET_WORD": "***"' in output
    assert SECRET not in output


def test_every_line_of_the_guide_can_be_typed(cloud):
    guide = (ROOT / "docs" / "trc.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^python (scripts/tpu_job\.py .*)$", guide, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        own, _, command = line.partition(" -- ")
        words = [
            sys.executable,
            *shlex.split(own.replace("--install .", "")),
            "--dry_run",
            "--",
            *shlex.split(command),
        ]
        environment = {**os.environ, "HF_TOKEN": SECRET}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "the TPU is deleted" in done.stdout


def test_a_command_that_fails_is_not_repeated_and_its_tpu_deleted(cloud):
    code, output = cloud.run(steps=3, CODE=9)
    assert code == 9
    assert "ended with status 9; its last lines:\n" in output
    assert "  step 3\n" in output
    state = cloud.state()
    assert (state["made"], state["nodes"]) == (1, {})


def test_zones_are_tried_in_order_and_again_where_none_has_a_tpu(cloud):
    none = 'There is no more capacity in the zone "zone-a"'
    quota = "Quota limit 'TPUV4sPodPerProjectPerZone' has been exceeded. Limit: 32"
    cloud.plan(refusals={"zone-a": [none, none, none], "zone-b": [quota, quota, ""]})
    code, output = cloud.run("--zones", "zone-a", "zone-b", steps=1)
    assert code == 0
    asked = [next(word for word in words if "zone=" in word)[-1] for words in cloud.calls("create")]
    assert asked == ["a", "b"] * 3
    assert output.count("no zone has one") == 2


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ("PERMISSION_DENIED: tpu.nodes.create", "no TPU could be created in zone-a: ERROR:"),
        (
            "Quota limit 'TPUV4' has been exceeded. Limit: 0 in region",
            "the project has no quota for this TPU in zone-a",
        ),
    ],
)
def test_what_waiting_does_not_help_ends_it(cloud, refusal, sentence):
    cloud.plan(refusals={"zone-a": [refusal] * 9})
    code, output = cloud.run()
    assert (code, cloud.state()["nodes"]) == (1, {})
    assert sentence in output
    assert "no TPU is left behind" in output


def test_a_queued_request_is_waited_for_and_made_again_after_a_preemption(cloud):
    cloud.plan(looks=4, preemptions=[3])
    code, output = cloud.run("--queued", steps=10, HANG_AT="home-1:3")
    assert code == 0, output
    assert cloud.steps() == [list(range(1, 11))]
    created, deleted = cloud.calls("create"), cloud.calls("delete")
    assert {words[2] for words in created + deleted} == {"queued-resources"}
    assert len(created) == len(deleted) == 2
    assert all("--node-id=student" in words for words in created)
    assert all("--force" in words for words in deleted)


def test_a_tpu_that_is_ready_but_never_answers_is_replaced(cloud):
    cloud.plan(silent=["home-1"])
    code, output = cloud.run("--lost_minutes", "0.005", steps=3)
    assert (code, cloud.steps()) == (0, [[1, 2, 3]])
    assert "no worker answered for 0.005 minutes: ERROR: (gcloud.compute.tpus) Connection closed" in output
    state = cloud.state()
    assert (state["made"], state["nodes"]) == (2, {})


def test_a_signal_lets_the_command_save_and_deletes_the_tpu(cloud):
    process = cloud.start(steps=10, HANG_AT="home-1:4")
    wait_for(lambda: cloud.steps() and len(cloud.steps()[0]) == 4)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert cloud.state()["nodes"] == {}
    assert (cloud.folder / "home-1-0/.tpu_job/log").read_text().endswith("saved\n")


def test_a_tpu_that_cannot_be_deleted_is_named_with_the_command(cloud):
    cloud.plan(failing_deletes=99)
    code, output = cloud.run("--project", "mine", "--retry_seconds", "0.001", steps=1)
    assert code == 1
    command = "gcloud compute tpus tpu-vm delete student --zone=zone-a --project=mine"
    assert f"may still exist and cost money: delete it with: {command}\n" in output


def test_a_tpu_that_exists_is_used_only_where_asked_for(cloud):
    code, output = cloud.run("--keep", steps=5)
    assert code == 0
    assert "is kept and costs money until you run: gcloud compute tpus tpu-vm delete student" in output
    code, output = cloud.run(steps=10)
    assert code == 2
    assert "a TPU named student exists in zone-a (READY)" in output
    code, output = cloud.run("--reuse", steps=10)
    assert code == 0
    assert cloud.steps() == [list(range(1, 11))]
    state = cloud.state()
    assert (state["made"], state["nodes"]) == (1, {})


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--max_restarts", "1"), "all restarts of --max_restarts 1 are used up"),
        (("--max_hours", "0.0003"), "hours of"),
    ],
)
def test_limits_end_it_with_75_and_the_tpu_deleted(cloud, flags, sentence):
    command = ("bash", "-c", "sleep 0.1; exit 75")
    code, output = cloud.run(*flags, command=command)
    assert (code, cloud.state()["nodes"]) == (75, {})
    assert sentence in output


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--accelerator_type", "tpu7x-8"), "is not offered by the Cloud TPU API"),
        (("--accelerator_type", "v5e-8"), "is called v5litepod-8 by gcloud"),
        (("--accelerator_type", "v4-6"), "the number of v4 is that of its cores, a multiple of 8"),
        (("--accelerator_type", "a100"), "a100 is unknown"),
        (("--name", "My_TPU"), "small letters, digits and hyphens"),
        (("--secret", "NOT_THERE"), "no environment variable of that name"),
        (("--env", f"WORD={SECRET}"), "a token stands on the command line"),
        (("--env", "HF=hf_" + "a" * 34), "a token stands on the command line"),
        (("--install", "./nowhere"), "there is no such folder or wheel"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_asked_for(cloud, flags, sentence):
    code, output = cloud.run(*flags)
    assert (code, cloud.calls()) == (2, [])
    assert sentence in " ".join(output.split())


def test_a_checkout_is_packed_without_what_git_ignores(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    package = importlib.import_module("tpu_supervisor.package")
    for name in ("setup.py", "secret.env", "new.py"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("*.env\n")
    for words in (["init", "-q"], ["add", "setup.py"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    with tarfile.open(fileobj=io.BytesIO(package.pack_checkout(tmp_path))) as tar:
        assert tar.getnames() == [".gitignore", "new.py", "setup.py"]


@pytest.mark.slow
def test_a_distillation_ends_the_same_through_preemptions_and_a_stop(cloud, teacher, prompts_dir):
    prompts = write_prompts(cloud.folder, prompts_dir)
    flags = {
        "teacher_model_name_or_path": teacher, "train_dataset_name": prompts, "student_decoder_layers": 1,
        "per_device_train_batch_size": 2, "max_steps": 30, "warmup_steps": 5, "precision": "full",
        "logging_steps": 1, "save_steps": 3, "export_dtype": "float32", "resume_from_checkpoint": "auto",
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "run_distillation.py"), *(f"--{k}={v}" for k, v in flags.items())]
    cache = str(cloud.folder / "programs")
    whole, student = cloud.folder / "whole", cloud.folder / "student"
    environment = os.environ | {"FLAX_DISTIL_COMPILATION_CACHE": cache}
    subprocess.run([*command, f"--output_dir={whole}"], env=environment, check=True, capture_output=True)
    cloud.plan(preemptions=[5, 20])
    process = cloud.start(
        "--spot", command=(*command, f"--output_dir={student}"), FLAX_DISTIL_COMPILATION_CACHE=cache
    )
    stopped = False
    while process.poll() is None:
        step = max((line["step"] for line in read_metrics(student)), default=0)
        (cloud.bucket / "steps-0").write_text("step " * step)
        running = cloud.folder / "home-2-0/.tpu_job/running.json"
        if step >= 10 and running.exists() and not stopped:
            stopped = True
            os.kill(json.loads(running.read_text())["command"], signal.SIGTERM)
        time.sleep(0.01)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("the TPU is PREEMPTED: restart") == 2
    assert output.count("the command stopped before its end: restart") == 1
    assert [line["step"] for line in read_metrics(student) if "loss" in line] == list(range(1, 31))
    assert (student / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
