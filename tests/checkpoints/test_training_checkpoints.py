import logging
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.core.errors import InputError


def state(step: int) -> dict:
    """A state with every kind of leaf that training has."""
    return {
        "step": jnp.int32(step),
        "params": {
            "kernel": jnp.arange(300_000, dtype=jnp.float32) * step,
            "bias": jnp.full((3,), step, jnp.bfloat16),
        },
        "moments": (jnp.ones((4,), jnp.float32) / step, jnp.array(2**31 - step, jnp.uint32)),
        "key": jax.random.key_data(jax.random.key(step)),
    }


def assert_same(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.sharding == other.sharding
        np.testing.assert_array_equal(one, other)


def test_state_and_data_position_come_back_exactly(tmp_path: Path):
    position = {"epoch": 2, "samples": 1_000_000, "sources": ["a", "b"], "shuffled": True}
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), position)
    with TrainingCheckpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(state(1))
    assert_same(restored.state, state(7))
    assert restored.data == position
    assert restored.step == 7


def test_a_template_of_shapes_is_enough(tmp_path: Path):
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state(3))
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(3))
        restored = checkpoints.restore(shapes)
    assert_same(restored.state, state(3))
    assert restored.data == {}


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path):
    with TrainingCheckpoints(tmp_path, save_total_limit=2) as checkpoints:
        assert checkpoints.steps() == []
        for step in (10, 20, 30):
            checkpoints.save(step, state(step), {"step": step})
        assert checkpoints.steps() == [20, 30]
        assert checkpoints.steps()[-1] == 30
        assert checkpoints.restore(state(1), step=20).data == {"step": 20}
        assert checkpoints.restore(state(1)).data == {"step": 30}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_20", "checkpoint_30"]


def test_a_state_that_is_donated_right_after_saving_is_saved_as_it_was(tmp_path: Path):
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    with TrainingCheckpoints(tmp_path) as checkpoints:
        for step in range(1, 5):
            current = state(step)
            jax.block_until_ready(current)
            checkpoints.save(step, current)
            jax.block_until_ready(update(current))
        for step in range(1, 5):
            assert_same(checkpoints.restore(state(9), step=step).state, state(step))


def test_a_step_that_is_saved_is_left_as_it_is(tmp_path: Path):
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5), {"first": True})
        checkpoints.save(5, state(6), {"first": False})
        assert checkpoints.restore(state(1)).data == {"first": True}


def test_remains_of_an_interrupted_save_are_not_taken_for_a_checkpoint(tmp_path: Path):
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5))
    torn = tmp_path / "checkpoint_6.orbax-checkpoint-tmp"
    (torn / "state").mkdir(parents=True)
    with TrainingCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.steps()[-1] == 5
        checkpoints.save(6, state(6))
        assert_same(checkpoints.restore(state(1)).state, state(6))
    assert not torn.exists()


def test_no_thread_outlives_the_checkpoints(tmp_path: Path):
    before = set(threading.enumerate())
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1))
    for thread in set(threading.enumerate()) - before:  # orbax lets go of some without waiting for them
        thread.join(timeout=5)
    assert set(threading.enumerate()) <= before


def test_a_state_of_another_model_is_refused_naming_what_differs(tmp_path: Path):
    other = state(1)
    other["params"]["kernel"] = jnp.zeros((7,))
    other["params"]["bias"] = jnp.zeros((3,))
    other["extra"] = other.pop("key")
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5))
        with pytest.raises(InputError, match=r"checkpoint_5 does not fit the state of this run") as caught:
            checkpoints.restore(other)
    message = str(caught.value)
    assert "params/kernel (saved float32[300000], expected float32[7])" in message
    assert "params/bias (saved bfloat16[3], expected float32[3])" in message
    assert "key (saved uint32[2], expected nothing)" in message
    assert "extra (saved nothing, expected uint32[2])" in message


def test_an_optimizer_state_is_checked_and_restored_in_its_own_types(tmp_path: Path):
    params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones((3,))}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.0, 1.0, 5)))
    current = {"params": params, "optimizer": optimizer.init(params)}
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(5, current)
        restored = checkpoints.restore(current)
        assert_same(restored.state, current)
        with pytest.raises(InputError, match="does not fit"):
            checkpoints.restore({"params": params, "optimizer": optax.sgd(0.1).init(params)})


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path):
    with TrainingCheckpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match="holds no training checkpoint to resume from"):
            checkpoints.restore(state(1))
        checkpoints.save(5, state(5))
        with pytest.raises(InputError, match=r"holds no checkpoint of step 4: it has \[5\]"):
            checkpoints.restore(state(1), step=4)


def test_a_limit_that_keeps_nothing_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="save_total_limit is 0"):
        TrainingCheckpoints(tmp_path / "run", save_total_limit=0)
    assert not (tmp_path / "run").exists()


def test_training_from_an_older_step_deletes_nothing_and_replaces_what_it_saves(tmp_path: Path):
    with TrainingCheckpoints(tmp_path) as checkpoints:
        for step in (2, 4, 6, 8):
            checkpoints.save(step, state(step))
    with TrainingCheckpoints(tmp_path, save_total_limit=3) as checkpoints:
        checkpoints.restore(state(1), step=4)
        assert checkpoints.steps() == [2, 4, 6, 8]
        checkpoints.save(4, state(9))  # it is there
        assert checkpoints.steps() == [2, 4, 6, 8]
        checkpoints.save(6, state(60))
        assert checkpoints.steps() == [2, 4, 6]
        assert_same(checkpoints.restore(state(1)).state, state(60))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept[3:] == ["earlier-checkpoint_6", "earlier-checkpoint_8"]


def test_a_save_that_fails_is_told_in_a_sentence_and_the_next_one_works(
    tmp_path: Path, limited_files, caplog, capfd
):
    with TrainingCheckpoints(tmp_path, save_total_limit=1) as checkpoints:
        checkpoints.save(1, state(1))
        checkpoints.wait()
        with limited_files(100_000):  # less than a state, and more than a probe
            checkpoints.save(2, state(2))
            checkpoints.wait()
        assert "checkpoint 2 in" in checkpoints.failure
        assert "File too large" in checkpoints.failure
        assert checkpoints.steps() == [1]
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1"]
        assert "Traceback" not in capfd.readouterr().err
        with limited_files(100):
            checkpoints.save(3, state(3))
            assert "File too large" in checkpoints.failure
        checkpoints.save(3, state(3))
        assert checkpoints.steps() == [3]
        assert checkpoints.failure is None
        assert_same(checkpoints.restore(state(1)).state, state(3))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warnings] == [
        "flax_distil.checkpoints.training.training_checkpoints"
    ] * 2


def test_the_checkpoint_that_is_to_be_kept_is_kept_beyond_the_limit(tmp_path: Path):
    with TrainingCheckpoints(tmp_path, save_total_limit=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.kept_step = 1
            checkpoints.save(step, state(step))
        assert checkpoints.steps() == [1, 3]
