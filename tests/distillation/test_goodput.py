"""Wall time by cause: exclusive, complete, over all attempts of a run."""

import json
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.goodput_record import CAUSES
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    made = Clock(100.0)
    monkeypatch.setattr("flax_distil.distillation.monitoring.goodput.time", made)
    return made


@pytest.fixture
def goodput(clock, tmp_path):
    made = Goodput(age=1.0)
    made.open(tmp_path)
    yield made
    made.close()


class Result:
    """What a step computes, ready when it is told so."""

    def __init__(self):
        self.ready = threading.Event()

    def block_until_ready(self):
        assert self.ready.wait(60)


def record(folder):
    return json.loads((folder / "goodput.json").read_text())


def spent(goodput):
    return {cause: seconds for cause, seconds in goodput.seconds().items() if seconds}


def attempt(folder, clock, *, first_step, saved=(), last_step):
    """Run one process that takes 0.25 s a step, and is killed after its last one."""
    goodput = Goodput(age=1.0)
    goodput.open(folder)
    goodput.begin_steps(first_step)
    for step in range(first_step + 1, last_step + 1):
        clock.sleep(0.25)
        goodput.dispatched(step, jnp.zeros(()))
        if step in saved:
            goodput.saved(step)
    goodput.write()
    jax.monitoring.unregister_event_duration_listener(goodput._note_compilation)


def test_causes_exclude_each_other_and_add_up_to_the_wall_time(goodput, clock):
    with goodput.during("evaluation"):
        clock.sleep(3.0)
        with goodput.during("save"):
            assert goodput.cause == "save"
            clock.sleep(5.0)
        clock.sleep(0.5)
    assert spent(goodput) == {"start": 1.0, "evaluation": 3.5, "save": 5.0}


def test_a_compilation_within_another_cause_is_counted_once(goodput, clock):
    compiled = "/jax/core/compile/backend_compile_duration"
    with goodput.during("evaluation"):
        clock.sleep(1.0 + 2.0 + 2.0)
        jax.monitoring.record_event_duration_secs(compiled, 2.0)
        clock.sleep(1.0)
        jax.monitoring.record_event_duration_secs(compiled, 5.0)  # the one before it was a part of it
    assert spent(goodput) == {"start": 1.0, "evaluation": 1.0, "compile": 5.0}


def test_what_jax_says_of_its_compilations_is_understood():
    goodput = Goodput()
    with goodput.during("evaluation"):
        jax.jit(lambda x: jax.jit(lambda y: jnp.sin(y) @ y)(x) + 1.0)(jnp.ones((3, 3)))
    goodput.close()
    assert 0 < goodput.seconds()["compile"] < goodput.since - goodput._begun


def test_waiting_for_a_batch_counts_as_data_only_while_the_devices_are_idle(goodput, clock):
    goodput.begin_steps(0)
    result = Result()
    goodput.dispatched(1, result)
    clock.sleep(0.5)
    with goodput.waiting_for_data():
        clock.sleep(2.0)
        result.ready.set()
        while goodput._devices.idle_since() is None:
            time.sleep(0.001)
        clock.sleep(3.0)
    assert spent(goodput) == {"start": 1.0, "step": 2.5, "data": 3.0}


def test_the_ends_of_the_last_steps_are_known(goodput, clock):
    for step in range(1, 11):
        clock.sleep(1.0)
        goodput.dispatched(step, jnp.full((), step))
        while goodput.end_of(step) is None:
            time.sleep(0.001)
    assert goodput.end_of(1) is None  # long ago
    assert goodput.end_of(11) is None
    assert (goodput.end_of(9), goodput.end_of(10)) == (109.0, 110.0)


def test_work_after_the_checkpoint_that_a_later_attempt_resumes_is_lost(tmp_path, clock):
    attempt(tmp_path, clock, first_step=0, saved=(4, 8), last_step=11)
    attempt(tmp_path, clock, first_step=8, last_step=10)  # killed before it saves: all of it is lost
    attempt(tmp_path, clock, first_step=8, saved=(12,), last_step=12)
    found = record(tmp_path)
    spent = [
        {cause: seconds for cause, seconds in one["seconds"].items() if seconds} for one in found["attempts"]
    ]
    assert spent == [{"start": 1.0, "step": 2.0, "lost": 0.75}, {"lost": 1.5}, {"start": 1.0, "step": 1.0}]
    assert found["wall_seconds"] == sum(found["seconds"].values()) == 7.25
    assert set(found["seconds"]) == set(CAUSES)


def test_nothing_is_lost_where_no_step_is_done_again(tmp_path, clock):
    attempt(tmp_path, clock, first_step=0, saved=(3,), last_step=3)
    attempt(tmp_path, clock, first_step=3, saved=(5,), last_step=5)
    assert record(tmp_path)["seconds"]["lost"] == 0


def test_a_damaged_record_begins_anew(tmp_path, clock):
    (tmp_path / "goodput.json").write_text('{"attempts": [{"started": 3}]}')
    attempt(tmp_path, clock, first_step=0, last_step=1)
    assert len(record(tmp_path)["attempts"]) == 1
