"""What signals do to a command, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = """
import hashlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let jobs in the background ignore it
from flax_distil.core import signals
from flax_distil.core.errors import Interrupted
signals._UNANSWERED_SECONDS = signals._ENDING_SECONDS = 0.5
def main():
    with signals.stop_signals():
        print("ready", flush=True)
"""
END = """
try:
    main()
except Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(75)
"""
BODIES = {
    "python": "time.sleep(60)",
    "library": "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    "steps": "signals.enter_stage(signals.Stage.BETWEEN_STEPS); time.sleep(60)",
    "short export": "signals.enter_stage(signals.Stage.FINISHING); time.sleep(0.3)",
    "long export": "signals.enter_stage(signals.Stage.FINISHING); time.sleep(60)",
    "asked": """signals.enter_stage(signals.Stage.BETWEEN_STEPS)
        while signals.stop_reason() is None:
            time.sleep(0.01)
        time.sleep(1)
        raise signals.interrupted('step 3 is saved')""",
}


def send(body: str, *numbers: int, pause: float = 0.7) -> tuple[int, str]:
    """Send signals to a process that is in the body, and return its status and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{BEGIN}        {BODIES[body]}{END}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for index, number in enumerate(numbers):
        time.sleep(pause if index else 0.05)
        process.send_signal(number)
    _, error = process.communicate(timeout=20)
    return process.returncode, error.strip()


@pytest.mark.parametrize("body", ["python", "library"])
def test_a_command_that_can_be_left_ends_where_it_is(body):
    status, error = send(body, signal.SIGTERM)
    assert status == 75
    assert error == "stopped by SIGTERM: what is finished is kept, and the same command goes on"


def test_a_command_with_work_to_save_ends_between_its_steps():
    assert send("asked", signal.SIGINT) == (75, "stopped by SIGINT: step 3 is saved")


def test_the_last_results_are_written_unless_that_takes_too_long():
    assert send("short export", signal.SIGTERM) == (0, "")
    status, error = send("long export", signal.SIGTERM)
    assert (status, "what is finished is kept" in error) == (75, True)


def test_a_second_signal_ends_at_once():
    assert send("steps", signal.SIGINT, signal.SIGTERM) == (143, "")
    assert send("steps", signal.SIGTERM, signal.SIGINT) == (130, "")


def test_a_signal_that_a_launcher_sends_twice_counts_once():
    assert send("asked", signal.SIGTERM, signal.SIGTERM, pause=0.1)[0] == 75
