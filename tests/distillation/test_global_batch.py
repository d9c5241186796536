"""Updates keep their samples on any number of devices, and what cannot be divided is refused."""

import logging

import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import replace
from flax_distil.distillation.setup.global_batch import (
    choose_global_batch,
    divide_global_batch,
    global_batch_size,
)
from tests.parallel.layouts import config


def kept(devices: int, size: int, *, per_device: int, accumulation: int) -> tuple[int, int]:
    given = replace(
        config(freeze_encoder=True),
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
    )
    found = divide_global_batch(given, devices, size)
    assert global_batch_size(found, devices) == size
    return found.per_device_train_batch_size, found.gradient_accumulation_steps


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [(8, (16, 1)), (4, (16, 2)), (1, (16, 8)), (16, (8, 1)), (32, (4, 1)), (128, (1, 1))],
)
def test_samples_of_an_update_become_micro_batches_or_smaller_ones(devices, wanted):
    assert kept(devices, 128, per_device=16, accumulation=1) == wanted


def test_a_configuration_that_fits_is_left_alone_and_a_change_is_told(caplog):
    with caplog.at_level(logging.INFO, logger="flax_distil"):
        assert kept(4, 48, per_device=3, accumulation=4) == (3, 4)
        assert not caplog.messages
        assert kept(3, 48, per_device=3, accumulation=4) == (2, 8)
    (line,) = caplog.messages
    assert "48 samples" in line
    assert "per_device_train_batch_size 2 and gradient_accumulation_steps 8" in line


def test_devices_that_cannot_share_the_samples_are_refused_with_numbers_that_can():
    with pytest.raises(InputError, match=r"12 samples, which cannot .* 5 devices .*\(1, 2, 3, 4, 6, 12\)"):
        kept(5, 12, per_device=3, accumulation=1)


def test_a_new_run_computes_the_global_batch_that_is_asked_for_on_any_devices(tmp_path):
    given = replace(config(freeze_encoder=True), global_batch_size=256, per_device_train_batch_size=64)
    for devices, wanted in {4: (64, 1), 8: (32, 1), 1: (64, 4)}.items():
        found = choose_global_batch(given, devices, tmp_path)
        assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == wanted
    unset = config(freeze_encoder=True)
    assert choose_global_batch(unset, 4, tmp_path) is unset
