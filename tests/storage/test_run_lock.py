"""One run per folder: who holds it is named, and a run that was killed does not keep others out."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from flax_distil.core.errors import InputError
from flax_distil.storage import run_lock
from flax_distil.storage.run_lock import RunLock
from tests.clock import Clock

HOLD = """
import sys, time
from pathlib import Path
from flax_distil.storage import run_lock
run_lock.BEAT_SECONDS = 0.1
with run_lock.RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def elsewhere(monkeypatch):
    """What this process says of its machine is what another one would say."""
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(run_lock, "_machine", lambda: "elsewhere")


@pytest.fixture
def killed(holder, elsewhere, monkeypatch, tmp_path):
    """The lock of a holder elsewhere that was killed 35 s ago, and a clock on which waits take no time."""
    holder.kill()
    holder.wait()
    found = json.loads((tmp_path / "run.lock").read_text())
    clock = Clock(found["beat_at"] + 35.0)
    monkeypatch.setattr(run_lock, "time", clock)
    return found, clock


def test_a_second_run_is_refused_and_told_who_holds_the_folder(holder, tmp_path):
    lock = RunLock(tmp_path)
    for act in (lock.check, lock.__enter__):
        with pytest.raises(InputError, match=rf"process {holder.pid} of \S+ on \S+, started 2"):
            act()


def test_a_run_that_was_killed_is_replaced_at_once_on_its_own_machine(holder, monkeypatch, tmp_path):
    holder.kill()
    holder.wait()
    monkeypatch.setattr(run_lock, "time", clock := Clock())
    with RunLock(tmp_path) as lock:
        assert json.loads(lock.path.read_text())["process_id"] == os.getpid()
    assert clock.seconds == 0
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_the_same_number_is_not_the_holder(holder, tmp_path):
    path = tmp_path / "run.lock"
    found = json.loads(path.read_text())
    holder.kill()
    holder.wait()
    path.write_text(json.dumps(found | {"process_id": os.getpid()}))  # started at another time
    RunLock(tmp_path).check()


def test_a_run_on_another_machine_is_known_to_live_by_what_it_writes(holder, elsewhere, tmp_path):
    with pytest.raises(InputError, match=f"process {holder.pid} "):
        RunLock(tmp_path).check()


def test_a_run_that_was_killed_on_another_machine_is_replaced_when_it_is_stale(killed, tmp_path):
    found, clock = killed
    with RunLock(tmp_path):
        assert clock.seconds - found["beat_at"] == pytest.approx(run_lock.STALE_SECONDS, abs=0.1)


def test_a_run_that_was_found_dead_is_not_waited_for_again_unless_it_writes(killed, tmp_path):
    found, clock = killed
    lock = RunLock(tmp_path)
    lock.check()
    waited = clock.seconds
    with lock:
        assert clock.seconds == waited
    lock.path.write_text(json.dumps(found | {"beats": found["beats"] + 1, "beat_at": waited}))
    lock.check()
    assert clock.seconds - waited == pytest.approx(run_lock.STALE_SECONDS, abs=0.1)


def test_of_many_runs_that_start_together_one_gets_the_folder(tmp_path):
    begin, end, got = threading.Barrier(8), threading.Event(), []

    def start():
        begin.wait()
        try:
            with RunLock(tmp_path):
                got.append(True)
                end.wait()
        except InputError:
            got.append(False)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(got) < 8:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_stood_still_until_another_took_over_ends_and_leaves_the_lock_to_it(holder, tmp_path):
    path = tmp_path / "run.lock"
    other = json.loads(path.read_text()) | {"id": "other", "host": "elsewhere", "process_id": 7}
    replaced = tmp_path / "new"
    replaced.write_text(json.dumps(other))
    replaced.replace(path)
    assert holder.wait(timeout=60) == 2
    assert re.search(r"was taken over.* by process 7 of \S+ on elsewhere", holder.stderr.read())
    assert json.loads(path.read_text())["id"] == "other"


def test_a_lock_that_is_damaged_is_replaced(tmp_path):
    (tmp_path / "run.lock").write_text('{"id"')
    with RunLock(tmp_path) as lock:
        assert json.loads(lock.path.read_text())["process_id"] == os.getpid()
