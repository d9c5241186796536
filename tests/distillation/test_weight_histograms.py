"""Histograms counted on the devices are those of numpy, on one device and over several."""

import numpy as np
import pytest

from flax_distil.distillation.monitoring.weight_histograms import BINS, weight_histograms
from flax_distil.parallel.config import ParallelConfig
from flax_distil.parallel.make_partitioner import join_devices


@pytest.mark.parametrize("parallelism", ["jit", "pmap"])
def test_every_matrix_of_every_layer_is_counted(parallelism):
    random = np.random.default_rng(0)
    stacked = random.normal(size=(2, 16, 32)).astype(np.float32)
    embedding = random.normal(size=(50, 8)).astype(np.float32)
    params = {
        "decoder": {
            "layers": {"fc1": {"kernel": stacked, "bias": np.zeros((2, 32), np.float32)}},
            "embed": {"embedding": embedding},
        }
    }
    partitioner = join_devices(ParallelConfig(parallelism=parallelism))
    found = weight_histograms(partitioner.device_put(params), partitioner)
    assert set(found) == {
        "weights/decoder/layer_00/fc1/kernel",
        "weights/decoder/layer_01/fc1/kernel",
        "weights/decoder/embed/embedding",
    }
    one = found["weights/decoder/layer_01/fc1/kernel"]
    np.testing.assert_allclose(one.edges[[0, -1]], [stacked[1].min(), stacked[1].max()])
    expected, _ = np.histogram(stacked[1], bins=BINS)
    assert one.counts.sum() == expected.sum()
    assert np.abs(one.counts - expected).sum() <= 4  # an element on an edge counts below it
    assert one.mean_square == pytest.approx(float(np.square(stacked[1]).mean()))


def test_weights_that_are_all_equal_or_not_finite_end_nothing():
    partitioner = join_devices(ParallelConfig())
    params = {
        "a": {"kernel": np.ones((2, 2), np.float32)},
        "b": {"kernel": np.full((2, 2), np.nan, np.float32)},
    }
    found = weight_histograms(partitioner.device_put(params), partitioner)
    assert list(found) == ["weights/a/kernel"]
    assert found["weights/a/kernel"].counts.sum() == 4
