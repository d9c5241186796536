"""Evaluations of long recordings, with a student that drafts, over devices, and killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from tests.evaluation.test_job import untimed
from tests.long_recording import long_recording
from tests.toys import write_teacher

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two long recordings and a short one."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = []
    for name, seconds in (("long", 40.0), ("short", 4.0), ("longer", 65.0)):
        samples_W, text = long_recording(seconds)
        soundfile.write(folder / f"{name}.wav", samples_W, SAMPLING_RATE)
        rows.append({"audio": f"{name}.wav", "text": text})
    path = folder / "recordings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def predictions(folder) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("chunked", {"chunk_length_s": 20.0, "temperatures": [0.0]}), ("sequential", {"temperatures": [0.0]})],
)
def test_recordings_of_any_length_are_evaluated(mode, settings, teacher, recordings, tmp_path):
    found = run(build(
            EvalConfig,
        model_name_or_path=str(teacher), dataset_name=str(recordings), mode=mode, generation_max_length=4,
        per_device_eval_batch_size=4, output_dir=str(tmp_path / "out"), **settings,
    ))  # fmt: skip
    figures = found["models"]["toy.en"]["total"]["clean"]
    assert (figures["samples"], figures["skipped"]) == (3, 0)
    seconds = {row["id"]: float(row["duration"]) for row in predictions(tmp_path / "out")}
    assert figures["audio_seconds"] == pytest.approx(sum(seconds.values()))
    assert list(seconds) == ["recordings:0", "recordings:1", "recordings:2"]
    assert max(seconds.values()) > 65
    # no row is for nobody: there are three recordings
    assert found["models"]["toy.en"]["speed"]["batch_size"] == [4 if mode == "chunked" else 3]


@pytest.mark.slow
def test_a_student_that_drafts_changes_no_transcript_and_is_counted(
    teacher, tiny_en_dir, recordings, tmp_path
):
    student = write_teacher(tmp_path / "student", tiny_en_dir, seed=1)
    texts, counts = [], []
    for mode in ("short", "speculative"):
        drafting = {"assistant_model_name_or_path": str(student)} if mode == "speculative" else {}
        found = run(build(
            EvalConfig,
            model_name_or_path=str(teacher), dataset_name=str(recordings), mode=mode, generation_max_length=8,
            per_device_eval_batch_size=1, output_dir=str(tmp_path / mode), **drafting,
        ))  # fmt: skip
        texts.append([row["prediction"] for row in predictions(tmp_path / mode)])
        counts.append(found["models"]["toy.en"]["speed"]["speculation"])
    assert texts[0] == texts[1] != []
    assert counts[0] is None
    assert 0 <= counts[1]["acceptance_rate"] <= 1
    assert 0 < counts[1]["passes_per_token"] <= 1
    assert counts[1]["passes_per_token"] == counts[1]["rounds"] / counts[1]["tokens"]


def test_drafting_needs_a_student():
    with pytest.raises(InputError, match="mode speculative needs a student that drafts: name assistant"):
        build(EvalConfig, model_name_or_path="m", dataset_name="d", mode="speculative")


def test_only_chunks_have_a_length():
    with pytest.raises(InputError, match="chunk_length_s is given, but mode sequential cuts no chunks"):
        build(EvalConfig, model_name_or_path="m", dataset_name="d", mode="sequential", chunk_length_s=20.0)


def command(flags, *, devices: int = 1) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "run_eval.py", *(f"--{name}={value}" for name, value in flags.items())],
        env={
            **os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(tiny_en_dir, prompts_dir, tmp_path):
    """A real model on real prompts, killed twice while it transcribes."""
    flags = {
        "model": tiny_en_dir, "dataset_name": prompts_dir, "dataset_split_name": "validation",
        "max_samples": 12, "per_device_eval_batch_size": 4, "generation_max_length": 64,
        "noise_types": "babble", "snr_db": 0, "output_dir": tmp_path / "killed",
    }  # fmt: skip

    def lines() -> int:
        files = (tmp_path / "killed").rglob("*.jsonl")
        return sum(path.read_bytes().count(b'{"prediction"') for path in files)

    for wanted in (2, 14):
        running = command(flags)
        while lines() < wanted:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        running.communicate()
    before = lines()
    assert wanted <= before < 24
    for folder in ("killed", "whole"):
        done = command(flags | {"output_dir": tmp_path / folder})
        assert done.wait() == 0, done.communicate()[1]
        done.communicate()
    assert lines() == 24
    killed, whole = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("killed", "whole")
    )
    assert killed["models"][tiny_en_dir.name]["total"]["clean"]["wer"] < 15
    same = ("id", "condition", "prediction", "wer", "tokens")
    texts = [[[row[name] for name in same] for row in predictions(tmp_path / f)] for f in ("killed", "whole")]
    assert texts[0] == texts[1]
    assert untimed(killed) == untimed(whole)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["short", "chunked", "sequential"])
def test_eight_devices_with_ragged_ends_hear_what_one_hears(mode, tiny_en_dir, recordings, tmp_path):
    flags = {
        "model": tiny_en_dir, "dataset_name": recordings, "mode": mode, "generation_max_length": 64,
        "per_device_eval_batch_size": 1, "latency_samples": 1,
    }  # fmt: skip
    texts = []
    for devices in (1, 8):
        folder = tmp_path / str(devices)
        done = command(flags | {"output_dir": folder}, devices=devices)
        _, errors = done.communicate()
        assert done.returncode == 0, errors
        texts.append([row["prediction"] for row in predictions(folder)])
        (entry,) = json.loads((folder / "results.json").read_text())["models"].values()
        assert entry["speed"]["devices"] == [f"{devices} x cpu"]
    assert texts[0] == texts[1]
    assert len(texts[0]) == (1 if mode == "short" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["chunked", "sequential"])
def test_long_recordings_are_understood(mode, tiny_en_dir, recordings, tmp_path):
    flags = {"model": tiny_en_dir, "dataset_name": recordings, "mode": mode, "per_device_eval_batch_size": 4}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    assert main(["eval", *arguments, f"--output_dir={tmp_path / 'out'}"]) == 0
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["models"].values()
    assert entry["total"]["clean"]["wer"] < 15
