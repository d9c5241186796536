"""Every file of the newest training checkpoint is damaged, one at a time: this is never silent."""

import collections
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.training.leaf_checksums import leaf_checksums
from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.core.errors import InputError


def state(step: int) -> dict:
    key = jax.random.key(step)
    return {
        "step": jnp.int32(step),
        "params": {"kernel": jax.random.normal(key, (200, 30)), "bias": jnp.full((3,), step, jnp.bfloat16)},
        "moments": (jnp.zeros((4,)), jnp.ones((5, 7)) / step),
    }


def flipped(content: bytes, at: float) -> bytes:
    changed = bytearray(content)
    changed[int(at * (len(content) - 1))] ^= 1 << int(at * 7)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "first bit flipped": lambda content: flipped(content, 0),
    "a bit flipped": lambda content: flipped(content, 0.6),
    "last bit flipped": lambda content: flipped(content, 1),
    "removed": lambda content: None,
}


def damaged_folders(folder: Path, scratch: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield the name of a file, of a damage, and a copy of a folder in which the file has the damage."""
    newest = max(folder.iterdir(), key=lambda path: int(path.name.rpartition("_")[2]))
    for path in sorted(newest.rglob("*")):
        for name, damage in DAMAGES.items():
            if path.is_dir() or damage(path.read_bytes()) == path.read_bytes():
                continue
            copy = shutil.copytree(folder, scratch / "run")
            target = copy / path.relative_to(folder)
            content = damage(target.read_bytes())
            target.unlink() if content is None else target.write_bytes(content)
            yield str(path.relative_to(newest)), name, copy
            shutil.rmtree(copy)


def is_state(found: dict, step: int) -> bool:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(state(step)), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with TrainingCheckpoints(tmp_path / "saved") as checkpoints:
        checkpoints.save(1, state(1), {"samples": 10})
        checkpoints.save(2, state(2), {"samples": 20})
    return tmp_path / "saved"


def test_each_damage_of_each_file_is_detected_and_the_checkpoint_before_is_used(saved, tmp_path, caplog):
    """Some files are not needed; where one of these is damaged the state is proved to be whole instead."""
    outcomes: collections.Counter[str] = collections.Counter()
    unneeded = set()
    for file, damage, folder in damaged_folders(saved, tmp_path / "scratch"):
        caplog.clear()
        with TrainingCheckpoints(folder) as checkpoints:
            restored = checkpoints.restore(state(0))
        assert is_state(restored.state, restored.step), (file, damage)
        assert restored.data == {"samples": 10 * restored.step}
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        if restored.step == 1:
            (sentence,) = [line for line in warnings if "checkpoint 2" in line]
            assert "is damaged and not used" in sentence
            assert "\n" not in sentence
            assert {path.name for path in folder.iterdir()} == {"checkpoint_1", "damaged-checkpoint_2"}
            outcomes["the checkpoint before was used"] += 1
        else:
            outcomes["the state was whole"] += 1
            unneeded.add(f"{file} {damage}")
    files = {name.partition(" ")[0] for name in unneeded}
    print(f"\n{outcomes.total()} damages: {dict(outcomes)}; files that are not needed: {sorted(files)}")
    assert outcomes["the checkpoint before was used"] >= 35
    assert not [name for name in unneeded if name.startswith(("state/d/", "data/metadata"))]


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(saved):
    (saved / "checkpoint_2" / "data" / "metadata").write_text("{")
    with TrainingCheckpoints(saved) as checkpoints:
        with pytest.raises(InputError, match=r"checkpoint 2 in .* is damaged .*choose another"):
            checkpoints.restore(state(0), step=2)
        assert checkpoints.read_data() == {"samples": 10}
        assert checkpoints.restore(state(0)).step == 1
        checkpoints.save(2, state(2))
        assert checkpoints.steps() == [1, 2]


def test_where_all_checkpoints_are_damaged_nothing_is_touched(saved):
    for step in (1, 2):
        (saved / f"checkpoint_{step}" / "data" / "metadata").write_text("{}")
    with TrainingCheckpoints(saved) as checkpoints:
        with pytest.raises(InputError, match=r"every checkpoint in .* is damaged"):
            checkpoints.restore(state(0))
        assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_that_may_not_be_read_now_is_not_called_damaged(saved, monkeypatch):
    import orbax.checkpoint as ocp

    def refuse(*_, **__):
        raise ValueError('PERMISSION_DENIED: Error reading "gs://bucket/state/d/1": token expired')

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", refuse)
    with TrainingCheckpoints(saved) as checkpoints:
        with pytest.raises(InputError, match=r"cannot be read .*token expired"):
            checkpoints.restore(state(0))
        assert checkpoints.steps() == [1, 2]


def test_checksums_see_every_bit_and_no_division():
    leaf = np.arange(48, dtype=np.float32).reshape(6, 8)
    expected = leaf_checksums({"a": jnp.asarray(leaf)})["a"]
    for bit in range(0, leaf.nbytes * 8, 5):
        changed = np.frombuffer(leaf.tobytes(), np.uint8).copy()
        changed[bit // 8] ^= 1 << bit % 8
        assert leaf_checksums({"a": jnp.asarray(changed.view(np.float32).reshape(6, 8))})["a"] != expected
    assert leaf_checksums({"a": jnp.asarray(leaf[::-1].copy())})["a"] != expected
    assert leaf_checksums({"a": jnp.asarray(leaf.astype(jnp.bfloat16)), "b": 3}).keys() == {"a", "b"}
