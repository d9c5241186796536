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
signals._UNANSWERED_SECONDS = 0.5
signals._ENDING_SECONDS, signals._SAME_SIGNAL_SECONDS = float(sys.argv[1]), float(sys.argv[2])
def until_asked():
    while signals.stop_reason() is None:
        time.sleep(0.01)
    print("asked", flush=True)
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
    "steps": "signals.enter_stage(signals.Stage.BETWEEN_STEPS); until_asked(); time.sleep(60)",
    "short export": "signals.enter_stage(signals.Stage.FINISHING); time.sleep(0.3)",
    "long export": "signals.enter_stage(signals.Stage.FINISHING); time.sleep(60)",
    "asked": """signals.enter_stage(signals.Stage.BETWEEN_STEPS)
        until_asked()
        time.sleep(0.5)
        raise signals.interrupted('step 3 is saved')""",
}


def send(body: str, *numbers: int, ending: float = 60.0, same: float = 60.0) -> tuple[int, str]:
    """Send signals to a process that is in the body, and return its status and what it says.

    Args:
        body: One of :data:`BODIES`.
        numbers: The signals; the second is sent when the first has been noted.
        ending: Seconds that the last results may take.
        same: Seconds within which a second signal counts as the first.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", f"{BEGIN}        {BODIES[body]}{END}", str(ending), str(same)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for number, line in zip(numbers, ("ready\n", "asked\n"), strict=False):
        assert process.stdout.readline() == line
        time.sleep(0.05)  # until it is in the body
        process.send_signal(number)
    _, error = process.communicate(timeout=60)
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
    status, error = send("long export", signal.SIGTERM, ending=0.5)
    assert (status, "what is finished is kept" in error) == (75, True)


def test_a_second_signal_ends_at_once():
    assert send("steps", signal.SIGINT, signal.SIGTERM, same=0.0) == (143, "")
    assert send("steps", signal.SIGTERM, signal.SIGINT, same=0.0) == (130, "")


def test_a_signal_that_a_launcher_sends_twice_counts_once():
    assert send("asked", signal.SIGTERM, signal.SIGTERM)[0] == 75
