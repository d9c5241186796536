"""A few updates in a row that diverged end a run; one alone does not."""

import logging
import time

import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import replace
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.step_metrics import StepMetrics
from flax_distil.distillation.monitoring.training_log import TrainingLog, read_metrics
from flax_distil.parallel.make_partitioner import single_device
from tests.clock import Clock
from tests.parallel.layouts import config


@pytest.fixture
def training(tmp_path):
    """Gives what notes steps of which only the losses are told, and the folder of the logs."""
    run = replace(config(freeze_encoder=True), logging_steps=4)
    with TrainingLog(tmp_path, max_steps=100) as logs:
        progress = StepMetrics(run, logs, single_device(), 10)

        def add(step, loss, norm=1.0, tokens=10.0):
            metrics = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(norm)}
            metrics["tokens"] = jnp.float32(tokens)
            names = [f"speech:{step}{letter}" for letter in "abcdefghij"]
            batch = Batch(ids=names, valid_B=np.ones(10, bool), duration_B=np.ones(10, np.float32))
            progress.add(step, metrics, batch)

        yield add, progress, tmp_path


def test_one_bad_update_is_warned_of_and_left_out_of_the_means(training, caplog):
    add, progress, folder = training
    with caplog.at_level(logging.WARNING, logger="flax_distil"):
        for step, loss in enumerate([4.0, float("nan"), 2.0, 3.0, 1.0], 1):
            add(step, loss)
    assert "step 2: loss nan with gradient norm 1 has diverged" in caplog.text
    assert "speech:2a, speech:2b" in caplog.text
    assert "speech:2h and 2 more" in caplog.text
    assert progress.is_sound()
    (line,) = read_metrics(folder)
    assert (line["step"], line["loss"], line["skipped_updates"]) == (4, 3.0, 1.0)


@pytest.mark.parametrize("bad", [{"loss": float("inf")}, {"norm": float("inf")}, {"loss": 2e9}])
def test_three_in_a_row_end_the_run_two_steps_after_the_third_at_most(training, bad):
    add, _, _ = training
    add(1, 2.0)
    for step in (2, 3, 4):
        add(step, **({"loss": 1.0} | bad))
    with pytest.raises(InputError) as stopped:
        add(5, 1.0)
    sentence = str(stopped.value)
    assert sentence.startswith("training stops at step 4: loss ")
    assert "3 updates in a row" in sentence
    assert "the samples of this step are speech:4a" in sentence


def test_a_run_whose_last_update_is_bad_saves_and_exports_nothing(training):
    add, progress, _ = training
    add(1, 2.0)
    assert progress.is_sound()
    add(2, float("nan"))
    assert not progress.is_sound()
    with pytest.raises(InputError, match=r"stops at step 2: .* in the last update"):
        progress.check_end()


def test_a_batch_without_a_usable_sample_is_no_divergence_and_a_hundred_in_a_row_end_the_run(training):
    add, progress, _ = training
    for step in range(1, 100):
        add(step, 0.0, norm=0.0, tokens=0.0)
    add(100, 2.0)
    assert progress.is_sound()
    for step in range(101, 201):
        add(step, 0.0, norm=0.0, tokens=0.0)
    with pytest.raises(InputError, match="at step 200: none of the samples of the last 100 batches"):
        progress.is_sound()


def test_the_line_of_a_full_interval_can_be_written_before_a_save(training):
    """A run that is killed after the save goes on behind this step, and would never write it."""
    add, progress, folder = training
    for step in range(1, 5):
        progress.flush_full()
        assert read_metrics(folder) == []
        add(step, 2.0)
    progress.flush_full()
    assert [line["step"] for line in read_metrics(folder)] == [4]


def test_the_rates_of_an_interval_end_with_its_last_step_and_not_when_it_is_looked_at(tmp_path, monkeypatch):
    """A short interval before an evaluation is looked at when the steps behind it have ended too."""
    clock = Clock()
    for module in ("goodput", "step_metrics"):
        monkeypatch.setattr(f"flax_distil.distillation.monitoring.{module}.time", clock)
    run = replace(config(freeze_encoder=True), logging_steps=2)
    batch = Batch(ids=["a"], valid_B=np.ones(1, bool), duration_B=np.ones(1, np.float32))
    goodput = Goodput()
    goodput.open(None)
    with TrainingLog(tmp_path, max_steps=100) as logs:
        progress = StepMetrics(run, logs, single_device(), 10, goodput=goodput)
        for step in (1, 2, 3):
            clock.sleep(0.5)
            metrics = {name: jnp.float32(step) for name in ("loss", "grad_norm", "tokens")}
            goodput.dispatched(step, metrics["loss"])
            while goodput.end_of(step) is None:
                time.sleep(0.001)
            clock.sleep(0.25)
            progress.add(step, metrics, batch)
        progress.flush()
    goodput.close()
    first, second = read_metrics(tmp_path)
    assert (first["seconds_per_step"], second["seconds_per_step"]) == (0.625, 0.75)
    assert second["samples_per_second"] == pytest.approx(1 / 0.75)
    assert first["data_wait_share"] == 0.0
