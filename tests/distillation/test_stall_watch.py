"""A run without progress is warned of: where it waits, and the stacks of its threads."""

import contextlib
import logging
import time

import pytest

from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.stall_watch import StallWatch
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("flax_distil.distillation.monitoring.stall_watch.time", made)
    return made


def wait_for_a_batch(clock, caplog):
    for seconds, warnings in ((0.03, 1), (0.05, 2), (0.07, 2)):
        clock.seconds = seconds
        clock.wait_for_looks(2)
        while len(caplog.messages) < warnings:
            time.sleep(0.001)


def test_a_stalled_run_is_told_where_it_waits_and_more_and_more_seldom(tmp_path, clock, caplog):
    with contextlib.closing(Goodput()) as goodput, caplog.at_level(logging.WARNING):
        goodput.begin_steps(3)
        with StallWatch(goodput, seconds=0.02, folder=tmp_path), goodput.during("data"):
            clock.wait_for_looks(2)  # it has seen what the run is doing
            wait_for_a_batch(clock, caplog)
    assert len(caplog.messages) == 2  # after 0.02 and 0.04 seconds, not yet 0.08
    assert "no progress for" in caplog.messages[0]
    assert "process 0 of 1 is waiting for data, after step 3 was begun, in" in caplog.messages[0]
    assert "wait_for_a_batch (test_stall_watch.py:" in caplog.messages[0]
    assert "clock.wait_for_looks(2)" in (tmp_path / "stall-0.txt").read_text()


def test_a_run_that_goes_on_is_not_warned_of(tmp_path, clock, caplog):
    with contextlib.closing(Goodput()) as goodput, StallWatch(goodput, seconds=0.03, folder=tmp_path):
        for _ in range(8):
            with goodput.during("data"):
                clock.wait_for_looks(2)
                clock.sleep(0.02)
    assert caplog.messages == []
