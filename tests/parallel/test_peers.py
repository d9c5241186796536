"""One of several processes is stopped, killed or fails: all end, in time, and say why."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT = 3

SOON = 45
"""Seconds that even a machine with much else to do keeps; JAX itself would wait for a minute more."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    status: int
    error: str
    seconds: float


def act(victim: int, *signals: int, pause: float = 0.0) -> Callable[[list[subprocess.Popen]], None]:
    def send(processes: list[subprocess.Popen]) -> None:
        for number in signals:
            processes[victim].send_signal(number)
            time.sleep(pause)

    return send


def start(task: str, number: int, address: str, count: int) -> subprocess.Popen:
    settings = {
        "coordinator_address": address, "num_processes": count, "process_id": number,
        "heartbeat_timeout_seconds": TIMEOUT,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-W", "error", Path(__file__).with_name("on_peers.py"), task, json.dumps(settings)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(task: str, action: Callable[[list[subprocess.Popen]], None], *, count: int = 2) -> list[Ended]:
    """Let processes count, do something to them, and return how each ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [start(task, number, address, count) for number in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            while (line := process.stdout.readline()) and "counting" not in line:
                pass
        action(processes)
        begun = time.monotonic()
        ended = []
        for process in processes:
            _, error = process.communicate(timeout=90)
            ended.append(Ended(status=process.returncode, error=error, seconds=time.monotonic() - begun))
        return ended
    finally:
        for process in processes:
            process.kill()


def steps(ended: Ended) -> int:
    (line,) = [line for line in ended.error.splitlines() if "steps are saved" in line]
    return int(line.partition(": ")[2].split()[0])


@pytest.mark.parametrize(
    ("task", "victim", "number"),
    [
        ("together", 1, signal.SIGTERM),
        pytest.param("apart", 0, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(task, victim, number):
    ended = run(task, act(victim, number))
    assert [one.status for one in ended] == [75, 75], ended
    assert steps(ended[0]) == steps(ended[1]) >= 5
    name = signal.Signals(number).name
    assert f"stopped by {name}: " in ended[victim].error
    assert f"stopped by {name} on process {victim} of 2 (" in ended[1 - victim].error
    assert max(one.seconds for one in ended) < SOON
    assert not any("Traceback" in one.error for one in ended)


@pytest.mark.slow
def test_a_signal_at_the_start_ends_all_at_once():
    ended = run("start", act(1, signal.SIGTERM))
    assert [one.status for one in ended] == [75, 75], ended
    assert ["what is finished is kept" in one.error for one in ended] == [True, True], ended
    assert max(one.seconds for one in ended) < SOON


@pytest.mark.parametrize(
    ("task", "victim"),
    [
        ("together", 0),
        pytest.param("together", 1, marks=pytest.mark.slow),
        pytest.param("start", 1, marks=pytest.mark.slow),
        pytest.param("apart", 0, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_is_named_by_the_others(task, victim):
    ended = run(task, act(victim, signal.SIGKILL), count=3)
    assert ended[victim].status == -signal.SIGKILL
    for number, one in enumerate(ended):
        if number != victim:
            assert one.status == 75, one
            assert f"stopped: process {victim} of 3 (" in one.error
            assert "Traceback" not in one.error
            assert "stack trace" not in one.error
            assert one.seconds < SOON


def test_a_process_that_fails_is_named_by_the_others():
    ended = run("fail", lambda processes: None)
    assert [one.status for one in ended] == [1, 1], ended
    assert "ValueError: a bug" in ended[1].error
    assert "error: process 1 of 2 (" in ended[0].error
    assert "has failed: a bug" in ended[0].error
    assert max(one.seconds for one in ended) < SOON
