"""A run without progress is warned of: where it waits, and the stacks of its threads."""

import contextlib
import logging
import threading
import time

from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.stall_watch import StallWatch


def wait_for_a_batch(event: threading.Event) -> None:
    event.wait(0.7)


def test_a_stalled_run_is_told_where_it_waits_and_more_and_more_seldom(tmp_path, caplog):
    with contextlib.closing(Goodput()) as goodput, caplog.at_level(logging.WARNING):
        goodput.begin_steps(3)
        with StallWatch(goodput, seconds=0.2, folder=tmp_path), goodput.during("data"):
            wait_for_a_batch(threading.Event())
    assert len(caplog.messages) == 2  # after 0.2 and 0.4 seconds, not yet 0.8
    assert "no progress for" in caplog.messages[0]
    assert "process 0 of 1 is waiting for data, after step 3 was begun, in" in caplog.messages[0]
    assert "wait_for_a_batch (test_stall_watch.py:" in caplog.messages[0]
    assert "event.wait(0.7)" in (tmp_path / "stall-0.txt").read_text()


def test_a_run_that_goes_on_is_not_warned_of(tmp_path, caplog):
    with contextlib.closing(Goodput()) as goodput, StallWatch(goodput, seconds=0.3, folder=tmp_path):
        for _ in range(8):
            with goodput.during("data"):
                time.sleep(0.1)
    assert caplog.messages == []
