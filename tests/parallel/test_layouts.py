"""However work is laid over eight devices, the numbers are those of one."""

import numpy as np
import pytest

from tests.parallel.eight_devices import run_on_eight_devices
from tests.parallel.layouts import COMPILED_MOST, LAYOUTS, RARE, ROWS, UPDATES

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def on_eight(tiny_en_dir):
    """What ``on_eight_devices.py`` found; this process has one device."""
    return run_on_eight_devices("on_eight_devices.py", tiny_en_dir)


@pytest.fixture(scope="module")
def rest_on_eight():
    return run_on_eight_devices("on_eight_devices.py")


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in RARE])
def test_five_updates_give_the_losses_and_weights_of_one_device(on_eight, layout):
    """With rows so uneven that a mean of the devices' means would be another number."""
    assert_equal(on_eight["frozen encoder"][layout])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "layout"),
    [
        *(("frozen encoder", layout) for layout in RARE),
        *(("trained encoder", layout) for layout in COMPILED_MOST),
    ],
)
def test_so_do_they_under_rarer_layouts_and_with_a_trained_encoder(rest_on_eight, encoder, layout):
    assert_equal(rest_on_eight[encoder][layout])


@pytest.mark.slow
def test_what_a_student_writes_on_policy_does_not_depend_on_the_layout(rest_on_eight):
    found = rest_on_eight["on policy"]
    assert set(found.pop("steps")) == {0.0, 1.0}
    assert len(found) == len(COMPILED_MOST) + 1
    for differences in found.values():
        assert_equal(differences)


def assert_equal(found):
    assert found["metrics"] <= 1e-5
    assert found["params"] <= 1e-5


def test_the_student_learns_meanwhile(on_eight):
    losses = [metrics["loss"] for metrics in on_eight["frozen encoder"]["one"]["history"]]
    assert len(losses) == UPDATES
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("layout", COMPILED_MOST)
def test_evaluation_sums_are_those_of_one_device(on_eight, layout):
    trained = on_eight["frozen encoder"]
    np.testing.assert_allclose(trained[layout]["evaluation"], trained["one"]["evaluation"], rtol=1e-5)


@pytest.mark.parametrize("layout", COMPILED_MOST)
def test_generated_tokens_and_word_times_are_those_of_one_device(on_eight, layout):
    said = on_eight["transcripts"]
    assert said[layout] == said["one"]
    assert len({tuple(tokens) for tokens, _ in said["one"]}) == ROWS  # rows cannot be mistaken
    assert all(ends for _, ends in said["one"])


def test_two_micro_batches_are_one_big_batch(on_eight):
    found = on_eight["accumulation"]
    assert found["params"] <= 1e-6
    assert found["metrics"] <= 1e-6
    assert found["steps"] == [UPDATES, UPDATES]


@pytest.mark.parametrize("tree", ["params", "gradients", "moments", "teacher and encoder"])
def test_a_device_of_an_fsdp_axis_of_eight_stores_at_most_a_seventh(on_eight, tree):
    assert on_eight["bytes"][tree] <= 1 / 7


def test_nothing_is_compiled_after_the_first_updates(on_eight):
    assert set(on_eight["recompilations"].values()) == {0}


def test_batches_and_weights_come_back_as_they_were_sent(on_eight):
    assert len(on_eight["placement"]) == 6  # and rows that do not divide are refused
    assert all(on_eight["placement"].values())
