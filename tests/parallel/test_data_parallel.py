"""Eight devices compute what one does, and hold what they should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flax_distil.parallel import batch_spec

DEVICES = 8


@pytest.fixture(scope="module")
def on_eight(tiny_en_dir):
    """What ``on_eight_devices.py`` found; this process has one device."""
    done = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("on_eight_devices.py"), tiny_en_dir],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is the cost
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_mesh_is_one_axis_over_all_local_devices(on_eight):
    assert on_eight["mesh"] == {"data": DEVICES}


def test_three_updates_on_eight_devices_have_the_losses_of_one_device(on_eight):
    """With masks so uneven that a mean of the devices' means would be another number."""
    training = on_eight["training"]
    per_device = training["tokens_per_device"]
    assert per_device[0] == 0 < per_device[1] < per_device[-1]
    assert len(training["one"]) == len(training["eight"]) == 3
    for step, (wanted, found) in enumerate(zip(training["one"], training["eight"], strict=True)):
        assert set(found) == set(wanted) >= {"loss", "ce_loss", "kl_loss", "mse_loss", "grad_norm"}
        assert found["tokens"] == sum(per_device)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=f"{name} of update {step}")
    losses = [metrics["loss"] for metrics in training["one"]]
    assert losses == sorted(losses, reverse=True)


def test_three_updates_on_eight_devices_give_the_parameters_of_one_device(on_eight):
    training = on_eight["training"]
    for path, difference in training["difference"].items():
        assert training["moved"][path] > 1e-3 * training["size"][path], path
        assert difference <= 1e-5 * training["size"][path], path


def test_evaluation_sums_over_all_devices(on_eight):
    evaluation = on_eight["evaluation"]
    np.testing.assert_allclose(evaluation["eight"], evaluation["one"], rtol=1e-5)


def test_results_may_stay_on_the_devices_that_made_them(on_eight):
    split = on_eight["split_results"]
    assert split["shards"] == [[2, 20, 16]] * DEVICES
    assert split["difference"] < 1e-5


def test_every_device_holds_its_own_rows_of_a_batch(on_eight):
    placement = on_eight["placement"]
    for name, axis in {"labels_KBT": 1, "samples_BW": 0, "valid_B": 0}.items():
        rows = np.split(np.array(placement["sent"][name]), DEVICES, axis=axis)
        assert placement["batch"][name] == [part.tolist() for part in rows], name


def test_every_device_holds_the_whole_of_a_replicated_tree(on_eight):
    assert on_eight["placement"]["replicated"] == {
        "scale": [[0.0, 1.0, 2.0]] * DEVICES,
        "norm/bias": [2.0] * DEVICES,
    }


def test_transcripts_of_eight_devices_are_those_of_one(on_eight):
    transcripts = on_eight["transcripts"]
    assert transcripts["eight"] == transcripts["one"]
    assert len({tuple(tokens) for tokens in transcripts["one"]}) == DEVICES  # rows cannot be mistaken


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("samples_BW", P("data")),
        ("labels_KBT", P(None, "data")),
        ("mel_KBRM", P(None, "data")),
        ("decoder_input_ids_BT", P("data")),
    ],
)
def test_the_name_of_an_array_tells_how_it_is_split(name, spec):
    assert batch_spec(name) == spec


@pytest.mark.parametrize("name", ["embedding_VD", "samples", ""])
def test_an_array_whose_name_has_no_batch_axis_is_refused(name):
    with pytest.raises(ValueError, match=f"{name!r} has no axis B"):
        batch_spec(name)
