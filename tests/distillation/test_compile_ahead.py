"""What has no room is known at the start, and told in one sentence."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.formats.reader import CheckpointFiles
from flax_distil.core.errors import InputError
from flax_distil.distillation.setup import compile_ahead as distil_ahead
from flax_distil.distillation.setup.compile_ahead import compile_largest
from flax_distil.distillation.setup.models import DistilModels
from flax_distil.distillation.shardings import TrainShardings
from flax_distil.distillation.step_fns import TrainStepFns
from flax_distil.distillation.train_state import TrainState
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.shaped_program import ShapedProgram
from tests.parallel.layouts import SMALL, TEACHER, config


@pytest.fixture
def given():
    """A run whose training step is a sum."""
    run = config(freeze_encoder=True, per_device_train_batch_size=4)
    layout = TrainShardings(run, single_device(), student=SMALL, teacher=TEACHER, shares_encoder=True)
    programs = TrainStepFns(run, layout, single_device(), max_steps=10)
    programs.train = ShapedProgram(
        jax.jit(lambda state, frozen, teacher, batch: batch["samples_KBW"].astype(jnp.float32).sort().sum())
    )
    files = CheckpointFiles(
        origin="", config={}, generation_config={}, preprocessor_config={}, tokenizer_config={}, tokenizer={}
    )
    student = Checkpoint(config=SMALL, params={}, files=files)
    models = DistilModels(
        config=run, layout=layout, student=student, teacher=None, trainable={}, frozen={}, kept={},
        teacher_params={},
    )  # fmt: skip
    return run, models, programs, single_device(), TrainState(jnp.int32(0), {}, ())


def test_the_step_is_compiled_for_the_batch_that_will_come(given):
    compile_largest(*given, tokens=64)
    (shapes,) = given[2].train.compiled
    assert ("labels_KBT", (2, 4, 64), "int32") in shapes
    assert ("samples_KBW", (2, 4, SMALL.window_samples), "int16") in shapes


def test_a_step_that_needs_more_than_a_device_has_is_refused(given, monkeypatch):
    monkeypatch.setattr(distil_ahead, "_free_bytes", lambda device: 100_000)
    with pytest.raises(InputError) as refused:
        compile_largest(*given, tokens=256)
    sentence = str(refused.value)
    assert re.search(r"labels of 256 tokens, .* GiB are needed and 0\.00 are free", sentence)
    assert "lower per_device_train_batch_size 4" in sentence
    monkeypatch.setattr(distil_ahead, "_free_bytes", lambda device: 100_000_000)
    compile_largest(*given, tokens=256)


def test_what_the_compiler_finds_no_room_for_is_refused_alike(given):
    class Full(ShapedProgram):
        def lower(self, *arguments):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in space hbm\nmore")

    given[2].train = Full(lambda: None)
    with pytest.raises(InputError, match=r"\(RESOURCE_EXHAUSTED: Ran out of memory in space hbm\)"):
        compile_largest(*given, tokens=256)


def test_encoder_states_and_augmentation_are_described_as_they_are_fed(given):
    run = dataclasses.replace(given[0], white_noise_prob=0.5, gradient_accumulation_steps=3)
    described = distil_ahead.describe_step_batch(run, SMALL, 4, 32)
    assert described["seed_KB"].shape == described["lengths_KB"].shape == (3, 4)
    cached = dataclasses.replace(given[0], cache_encoder_states=True)
    described = distil_ahead.describe_step_batch(cached, SMALL, 4, 32)
    assert described["encoder_out_KBSD"].shape == (2, 4, SMALL.max_source_positions, SMALL.d_model)
    assert "samples_KBW" not in described
