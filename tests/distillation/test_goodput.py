"""Wall time by cause: exclusive, complete, over all attempts of a run."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.goodput_record import CAUSES


@pytest.fixture
def goodput(tmp_path):
    made = Goodput(age=1.0)
    made.open(tmp_path)
    yield made
    made.close()


def record(folder):
    return json.loads((folder / "goodput.json").read_text())


def attempt(folder, *, first_step, saved=(), last_step):
    """Run one process that is killed after its last step."""
    goodput = Goodput(age=1.0)
    goodput.open(folder)
    goodput.begin_steps(first_step)
    for step in range(first_step + 1, last_step + 1):
        time.sleep(0.005)
        goodput.dispatched(step, jnp.zeros(()))
        if step in saved:
            goodput.saved(step)
    goodput.write()
    jax.monitoring.unregister_event_duration_listener(goodput._note_compilation)


def test_causes_exclude_each_other_and_add_up_to_the_wall_time(goodput):
    begun = time.perf_counter()
    with goodput.during("evaluation"):
        time.sleep(0.03)
        with goodput.during("save"):
            assert goodput.cause == "save"
            time.sleep(0.05)
    seconds, passed = goodput.seconds(), time.perf_counter() - begun
    assert 0.03 <= seconds["evaluation"] < 0.05 <= seconds["save"] < 0.07
    assert sum(seconds.values()) == pytest.approx(1.0 + passed, abs=0.01)


def test_a_compilation_within_another_cause_is_found_and_counted_once(goodput):
    with goodput.during("evaluation"):
        jax.jit(lambda x: jax.jit(lambda y: jnp.sin(y) @ y)(x) + 1.0)(jnp.ones((3, 3)))
    seconds = goodput.seconds()
    assert seconds["compile"] > 3 * seconds["evaluation"] > 0


def test_waiting_for_a_batch_counts_as_data_only_while_the_devices_are_idle(goodput):
    matrix, multiply = (
        jnp.ones((700, 700)),
        jax.jit(lambda x: jax.lax.fori_loop(0, 30, lambda _, y: x @ y, x)),
    )
    multiply(matrix).block_until_ready()
    goodput.begin_steps(0)
    begun = time.perf_counter()
    result = multiply(matrix)
    goodput.dispatched(1, result)
    with goodput.waiting_for_data():
        result.block_until_ready()
        computed = time.perf_counter() - begun
        time.sleep(0.2)
    seconds = goodput.seconds()
    assert seconds["data"] == pytest.approx(0.2, abs=0.03)
    assert seconds["step"] == pytest.approx(computed, abs=0.03)


def test_the_ends_of_the_last_steps_are_known(goodput):
    begun = time.perf_counter()
    for step in range(1, 11):
        goodput.dispatched(step, jnp.full((), step))
    while goodput.end_of(10) is None:
        time.sleep(0.005)
    assert goodput.end_of(1) is None  # long ago
    assert goodput.end_of(11) is None
    assert begun < goodput.end_of(9) <= goodput.end_of(10) <= time.perf_counter()


def test_work_after_the_checkpoint_that_a_later_attempt_resumes_is_lost(tmp_path):
    attempt(tmp_path, first_step=0, saved=(4, 8), last_step=11)
    before = record(tmp_path)["attempts"][0]
    attempt(tmp_path, first_step=8, last_step=10)  # killed before it saves: all of it is lost
    attempt(tmp_path, first_step=8, saved=(12,), last_step=12)
    after = record(tmp_path)
    first, second, third = after["attempts"]
    kept = before["seconds_at_saves"]["8"]
    lost = sum(before["seconds"].values()) - sum(kept.values())
    assert first["seconds"] == {**kept, "lost": pytest.approx(lost, abs=0.01)}
    assert second["seconds"] == {"lost": pytest.approx(1.0, abs=0.3)}
    assert third["seconds"]["lost"] == 0 < third["seconds"]["step"]
    by_attempt = [sum(one["seconds"].values()) for one in after["attempts"]]
    assert after["wall_seconds"] == pytest.approx(sum(by_attempt), abs=0.01)
    assert after["wall_seconds"] == pytest.approx(sum(after["seconds"].values()), abs=0.01)
    assert set(after["seconds"]) == set(CAUSES)


def test_nothing_is_lost_where_no_step_is_done_again(tmp_path):
    attempt(tmp_path, first_step=0, saved=(3,), last_step=3)
    attempt(tmp_path, first_step=3, saved=(5,), last_step=5)
    assert record(tmp_path)["seconds"]["lost"] == 0


def test_a_damaged_record_begins_anew(tmp_path):
    (tmp_path / "goodput.json").write_text('{"attempts": [{"started": 3}]}')
    attempt(tmp_path, first_step=0, last_step=1)
    assert len(record(tmp_path)["attempts"]) == 1
