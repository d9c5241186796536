"""Training checkpoints in an emulated bucket: saved, limited, found damaged, renamed, read by ``export``."""

import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.storage.bucket_path import BucketPath
from tests.storage.buckets import LARGE_BODIES, running_gs

pytestmark = [LARGE_BODIES, pytest.mark.slow]


def state(step: int) -> dict:
    return {"step": jnp.int32(step), "params": {"kernel": jnp.arange(3000.0).reshape(30, 100) * step}}


def test_a_damaged_checkpoint_in_a_bucket_is_renamed_and_the_one_before_is_used(monkeypatch, caplog):
    with running_gs(monkeypatch):
        folder = BucketPath("gs://bucket/run/checkpoints")
        with TrainingCheckpoints(folder, save_total_limit=2) as checkpoints:
            for step in (1, 2, 3):
                checkpoints.save(step, state(step), {"samples": step})
            assert checkpoints.steps() == [2, 3]
        chunk = max((folder / "checkpoint_3" / "state" / "d").iterdir(), key=lambda path: path.size())
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(bytes(content))
        with TrainingCheckpoints(folder) as checkpoints:
            restored = checkpoints.restore(state(0))
            assert (restored.step, restored.data) == (2, {"samples": 2})
            assert checkpoints.steps() == [2]
            checkpoints.save(3, state(3))
            assert checkpoints.steps() == [2, 3]
        with TrainingCheckpoints(folder, read_only=True) as checkpoints:
            kernel = checkpoints.restore_branch("params", 3)["kernel"]
        np.testing.assert_array_equal(kernel, state(3)["params"]["kernel"])
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["checkpoint_2", "checkpoint_3", "damaged-checkpoint_3"]
    assert "is damaged and not used" in caplog.text
