"""Encoder states on disk: exact, resumable, refused when they belong to something else."""

import json
import logging
import shutil

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.fingerprints import weights_fingerprint
from flax_distil.data.training.encoder_cache import EncoderStateCache
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData

ROWS, POSITIONS, WIDTH = 6, 5, 4


def opened(folder, fingerprint: str = "teacher and data", **sizes: int) -> EncoderStateCache:
    sizes = {"rows": ROWS, "positions": POSITIONS, "width": WIDTH} | sizes
    return EncoderStateCache(folder, fingerprint=fingerprint, **sizes)


def states(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, POSITIONS, WIDTH)).astype(np.float32)


def test_states_come_back_as_bfloat16_in_the_order_asked_for(tmp_path):
    cache = opened(tmp_path / "states")
    written = states(3)
    cache.write([4, 0, 2], written)
    read = cache.read([0, 2, 4])
    assert read.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read, written[[1, 2, 0]].astype(ml_dtypes.bfloat16))
    assert cache.has([0, 2, 4])
    assert not cache.has([0, 1])
    assert not cache.complete


def test_device_arrays_are_taken_as_they_come(tmp_path):
    cache = opened(tmp_path)
    device_BSD = jnp.asarray(states(2), jnp.bfloat16)
    cache.write([0, 1], np.asarray(device_BSD))
    np.testing.assert_array_equal(cache.read(np.array([0, 1])), np.asarray(device_BSD))


def test_flushed_states_survive_an_interruption_and_others_are_asked_for_again(tmp_path):
    cache = opened(tmp_path)
    cache.write([0, 1], states(2))
    cache.flush()
    cache.write([2], states(1, seed=1))
    again = opened(tmp_path)  # another process, as if the first had been killed here
    assert [again.needs_audio(index) for index in range(4)] == [False, False, True, True]
    np.testing.assert_array_equal(again.read([0, 1]), states(2).astype(ml_dtypes.bfloat16))
    again.write(range(6), states(6))
    assert again.complete


def test_a_marked_row_is_never_behind_its_states(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    cache.write([0], states(1))

    def fail() -> None:
        raise OSError("disk unplugged")

    monkeypatch.setattr(cache._states_ISD, "flush", fail)
    with pytest.raises(OSError, match="unplugged"):
        cache.flush()
    assert not opened(tmp_path).has([0])


@pytest.mark.parametrize("change", [{"fingerprint": "another teacher"}, {"rows": 5}, {"width": 8}])
def test_states_of_something_else_are_made_again_with_a_notice(change, tmp_path, caplog):
    cache = opened(tmp_path)
    cache.write([0], states(1))
    cache.flush()
    with caplog.at_level(logging.WARNING):
        other = opened(tmp_path, **change)
    assert not other.has([0])
    assert "belong to another encoder" in caplog.text


def test_the_same_states_are_opened_without_a_notice(tmp_path, caplog):
    opened(tmp_path)
    opened(tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["states.bin", "done.bin", "manifest.json"])
def test_a_damaged_folder_is_made_again(damage, tmp_path):
    cache = opened(tmp_path)
    cache.write(range(6), states(6))
    cache.flush()
    (tmp_path / damage).write_bytes(b"{")
    assert not opened(tmp_path).has([0])
    assert json.loads((tmp_path / "manifest.json").read_text())["rows"] == ROWS


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    folder = tmp_path / "states"
    rows = shutil.disk_usage(tmp_path).total // (1500 * 1280 * 2) + 1
    with pytest.raises(InputError) as error:
        opened(folder, rows=rows, positions=1500, width=1280)
    assert f"{rows * 1500 * 1280 * 2} bytes are needed" in str(error.value)
    assert str(folder) in str(error.value)
    assert list(folder.iterdir()) == []


def test_the_place_on_disk_is_reserved_at_once(tmp_path):
    opened(tmp_path, rows=64, positions=100, width=64)
    status = (tmp_path / "states.bin").stat()
    assert status.st_blocks * 512 >= status.st_size == 64 * 100 * 64 * 2


def test_absent_rows_and_padding_are_refused(tmp_path):
    cache = opened(tmp_path)
    with pytest.raises(KeyError, match="no encoder states for row 3"):
        cache.read([3])
    with pytest.raises(ValueError, match="leave padding out"):
        cache.write([0, -1], states(2))
    cache.write(range(6), states(6))
    with pytest.raises(ValueError, match="leave padding out"):
        cache.read([0, -1])


def test_fingerprints_follow_names_values_types_and_shapes():
    params = {"conv": {"kernel": np.ones((2, 3), np.float32)}, "norm": {"scale": jnp.ones(3, jnp.bfloat16)}}
    same = {"norm": {"scale": jnp.ones(3, jnp.bfloat16)}, "conv": {"kernel": jnp.ones((2, 3))}}
    assert weights_fingerprint(params) == weights_fingerprint(same)
    kernel = params["conv"]["kernel"]
    for other in (kernel.T, kernel.astype(np.float16), kernel + 1e-7):
        assert weights_fingerprint({**params, "conv": {"kernel": other}}) != weights_fingerprint(params)
    assert weights_fingerprint({**params, "conv": {"bias": kernel}}) != weights_fingerprint(params)


def test_a_second_epoch_decodes_nothing_once_states_are_kept(speech, labels, tmp_path):
    cache = opened(tmp_path, rows=len(speech))
    config = PipelineConfig(batch_size=4, num_threads=1, prefetch_batches=1)
    pipeline = TrainingPipeline(
        TrainingData(sources=[TableSource(data=speech, labels=labels)]),
        config,
        seed=0,
        needs_audio=cache.needs_audio,
    )
    decoded = []
    for _ in range(12):
        batch = next(pipeline)
        new = batch.index_B[batch.has_audio_B]
        decoded.append(len(new))
        encoded = np.repeat(new.astype(np.float32), POSITIONS * WIDTH).reshape(-1, POSITIONS, WIDTH)
        cache.write(new, encoded)
        np.testing.assert_array_equal(cache.read(batch.index_B)[:, 0, 0], batch.index_B)
    pipeline.close()
    assert cache.complete
    # What was read ahead before its states were there is decoded once more; never after that.
    assert decoded[-6:] == [0] * 6
