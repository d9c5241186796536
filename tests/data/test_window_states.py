"""Encoder states by what was heard: found whatever a row is called, and never mixed up."""

import ml_dtypes
import numpy as np
import pytest

from flax_distil.audio.clip import to_int16
from flax_distil.core.errors import InputError
from flax_distil.data.training.encoder_cache import EncoderStateCache
from flax_distil.data.window_states import WindowStates

POSITIONS, WIDTH, SAMPLES = 5, 4, 80


def opened(folder, fingerprint: str = "encoder") -> WindowStates:
    return WindowStates(folder, fingerprint=fingerprint, positions=POSITIONS, width=WIDTH)


def windows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, SAMPLES)).astype(np.float32)


def states(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, POSITIONS, WIDTH)).astype(np.float32)


def test_states_are_found_by_the_samples_as_training_reads_them(tmp_path):
    heard, encoded = windows(3), states(3)
    opened(tmp_path).add(heard, encoded)
    again = opened(tmp_path)
    assert len(again) == 3
    integers = np.stack([to_int16(heard[2]), to_int16(windows(1, seed=9)[0]), to_int16(heard[0])])
    found = again.find(integers, [0, 1, 2])
    assert sorted(found) == [0, 2]
    np.testing.assert_array_equal(found[0], encoded[2].astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(found[2], encoded[0].astype(ml_dtypes.bfloat16))
    assert again.find(integers, [1]) == {}
    assert opened(tmp_path, "another encoder").find(integers, [0, 1, 2]) == {}


def test_windows_are_kept_once_and_silence_is_not(tmp_path):
    heard = windows(3)
    heard[1] = 0
    kept = opened(tmp_path)
    kept.add(heard, states(3))
    kept.add(np.concatenate([heard, windows(1, seed=1)]), states(4, seed=1))
    assert len(kept) == 3
    found = opened(tmp_path).find(heard, [0, 1, 2])
    assert sorted(found) == [0, 2]
    np.testing.assert_array_equal(found[0], states(3)[0].astype(ml_dtypes.bfloat16))


def test_what_a_killed_process_left_behind_whole_windows_is_written_over(tmp_path):
    opened(tmp_path).add(windows(2), states(2))
    with (tmp_path / "encoder" / "states.bin").open("ab") as file:
        file.write(b"half a window")
    with (tmp_path / "encoder" / "windows.bin").open("ab") as file:
        file.write(b"half")
    again = opened(tmp_path)
    again.add(windows(1, seed=1), states(1, seed=1))
    found = opened(tmp_path).find(np.concatenate([windows(2), windows(1, seed=1)]), range(3))
    expected = np.concatenate([states(2), states(1, seed=1)]).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.stack([found[row] for row in range(3)]), expected)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "encoder").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written to .*encoder: File exists; name another folder"):
        opened(tmp_path).add(windows(1), states(1))


def test_a_cache_of_rows_takes_what_is_known(tmp_path):
    known = opened(tmp_path)
    known.add(windows(2), states(2))
    sizes = {"rows": 6, "positions": POSITIONS, "width": WIDTH}
    cache = EncoderStateCache(tmp_path, fingerprint="rows", windows=known, **sizes)
    heard = np.concatenate([windows(1, seed=1), windows(2)])
    missing = cache.copy_known(np.array([5, 3, 1]), heard, np.array([True, True, False]))
    assert missing.tolist() == [True, False, False]
    assert [cache.has([row]) for row in (5, 3, 1)] == [False, True, False]
    np.testing.assert_array_equal(cache.read([3])[0], states(2)[0].astype(ml_dtypes.bfloat16))
