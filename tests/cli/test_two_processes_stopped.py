"""Commands on two processes, of which one is stopped or killed, go on with the same command line."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from tests.cli.test_several_processes import run, start
from tests.toys import USABLE_PROMPTS, write_prompts, write_teacher


@pytest.fixture(scope="module")
def flags(tmp_path_factory, tiny_en_dir, prompts_dir) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("stopped")
    return {
        "teacher_model_name_or_path": write_teacher(folder / "teacher", tiny_en_dir),
        "student_decoder_layers": 1, "train_dataset_name": write_prompts(folder, prompts_dir),
        "precision": "full", "per_device_train_batch_size": 2, "max_steps": 100000, "logging_steps": 1,
        "save_steps": 5, "resume_from_checkpoint": "auto", "heartbeat_timeout_seconds": 5,
    }  # fmt: skip


def steps(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [entry["step"] for entry in map(json.loads, lines) if "loss" in entry]


def run_until(
    is_reached: Callable[[], bool],
    victim: int,
    number: int,
    flags: dict[str, object],
    *,
    script: str = "run_distillation",
) -> list[tuple[int, list[str], float]]:
    """Run a command on two processes, send a signal to one, and return how both ended, and when."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    given = flags | {"coordinator_address": address, "num_processes": 2}
    processes = [start(script, given | {"process_id": index}, devices=1) for index in range(2)]
    try:
        while not is_reached():
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.1)
        processes[victim].send_signal(number)
        begun = time.monotonic()
        ended = []
        for process in processes:
            _, error = process.communicate(timeout=60)
            ended.append((process.returncode, error.splitlines(), time.monotonic() - begun))
        return ended
    finally:
        for process in processes:
            process.kill()


def train_until(flags: dict[str, object], folder: Path, step: int, victim: int, number: int) -> list[tuple]:
    """Train up to a step and send a signal to one process."""
    given = flags | {"output_dir": folder}
    return run_until(lambda: max(steps(folder), default=0) >= step, victim, number, given)


def last_sentence(lines: list[str]) -> str:
    return [line for line in lines if line.startswith("stopped")][-1]


@pytest.mark.slow
def test_a_signal_to_one_process_saves_the_same_step_on_both_and_nothing_is_done_again(flags, tmp_path):
    folder = tmp_path / "student"
    ended = train_until(flags, folder, 3, 1, signal.SIGTERM)
    assert [status for status, *_ in ended] == [75, 75], ended
    assert max(seconds for *_, seconds in ended) < 30
    sentences = [last_sentence(lines) for _, lines, _ in ended]
    saved = [sentence.partition(": ")[2] for sentence in sentences]
    assert saved[0] == saved[1]
    assert "stopped by SIGTERM on process 1 of 2 (" in sentences[0]
    step = int(saved[0].split()[1])
    assert (folder / "checkpoints" / f"checkpoint_{step}").is_dir()
    ended = train_until(flags, folder, step + 3, 0, signal.SIGINT)
    assert [status for status, *_ in ended] == [75, 75], ended
    found = steps(folder)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= step + 3


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_same_command_goes_on(flags, tmp_path):
    folder = tmp_path / "student"
    for victim, step in ((1, 8), (0, 14)):
        ended = train_until(flags, folder, step, victim, signal.SIGKILL)
        status, lines, seconds = ended[1 - victim]
        assert status == 75, ended
        assert f"stopped: process {victim} of 2 (" in last_sentence(lines)
        assert not any("Traceback" in line or "stack trace" in line for line in lines)
        assert seconds < 15
    ended = train_until(flags, folder, 20, 1, signal.SIGTERM)
    assert [status for status, *_ in ended] == [75, 75], ended
    found = steps(folder)
    assert found == list(range(1, len(found) + 1))


@pytest.mark.slow
def test_labelling_ends_on_both_and_the_same_command_goes_on(flags, tmp_path):
    folder = tmp_path / "labels"
    given = {
        "model_name_or_path": flags["teacher_model_name_or_path"], "samples_per_shard": 1,
        "dataset_name": flags["train_dataset_name"], "per_device_eval_batch_size": 1,
        "generation_max_length": 200, "output_dir": folder,
    }  # fmt: skip
    has_labels = lambda: any(folder.rglob("*.parquet"))  # noqa: E731
    ended = run_until(has_labels, 1, signal.SIGTERM, given, script="run_pseudo_label")
    assert [status for status, *_ in ended] == [75, 75], ended
    assert max(seconds for *_, seconds in ended) < 15
    assert all("what is finished is kept" in last_sentence(lines) for _, lines, _ in ended)
    found = len(list(folder.rglob("*.parquet")))
    assert 1 <= found < USABLE_PROMPTS
    run("run_pseudo_label", given, processes=2)
    assert len(load_table(DatasetSpec(name=str(folder)))) == USABLE_PROMPTS
