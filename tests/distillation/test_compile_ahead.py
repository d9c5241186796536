"""What has no room is known at the start, and told in one sentence."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding

from flax_distil.core.errors import InputError
from flax_distil.distillation.setup import compile_ahead
from flax_distil.distillation.setup.compile_ahead import (
    ShorterSteps,
    check_memory,
    empty_batch,
    memory_errors_explained,
)
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import MICRO_BATCHES, REPLICATED
from tests.parallel.layouts import SMALL, config

RUN = config(freeze_encoder=True, per_device_train_batch_size=4)


def test_the_step_is_compiled_for_the_batch_that_will_come():
    batch = empty_batch(RUN, SMALL, single_device(), tokens=64)
    assert (batch.labels_BT.shape, batch.labels_BT.dtype) == ((2, 4, 64), jnp.int32)
    assert (batch.samples_BW.shape, batch.samples_BW.dtype) == ((2, 4, SMALL.window_samples), jnp.int16)


def test_a_step_that_needs_more_than_a_device_has_is_refused(monkeypatch):
    batch = empty_batch(RUN, SMALL, single_device(), tokens=256)
    step = jax.jit(lambda batch: batch.samples_BW.astype(jnp.float32).sort().sum()).lower(batch).compile()
    monkeypatch.setattr(compile_ahead, "_free_bytes", lambda device: 100_000)
    with pytest.raises(InputError) as refused:
        check_memory(RUN, step, batch, 256, seconds=1.0)
    sentence = str(refused.value)
    assert re.search(r"labels of 256 tokens, .* GiB are needed and 0\.00 are free", sentence)
    assert "lower per_device_train_batch_size 4" in sentence
    monkeypatch.setattr(compile_ahead, "_free_bytes", lambda device: 100_000_000)
    check_memory(RUN, step, batch, 256, seconds=1.0)


def test_what_the_compiler_finds_no_room_for_is_refused_alike():
    with (
        pytest.raises(InputError, match=r"\(RESOURCE_EXHAUSTED: Ran out of memory in space hbm\)"),
        memory_errors_explained(RUN, 256),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in space hbm\nmore")


def test_a_step_for_shorter_labels_is_compiled_in_the_thread_and_not_again_when_it_is_called(caplog):
    partitioner = single_device()

    def add_labels(total, batch):
        return total + batch.labels_BT.sum()

    step = partitioner.jit(
        add_labels,
        in_specs=(REPLICATED, MICRO_BATCHES),
        out_specs=REPLICATED,
        donate_argnums=(0,),
    )
    total = jax.device_put(jnp.zeros((), jnp.int32), NamedSharding(partitioner.mesh, REPLICATED))
    batches = {tokens: empty_batch(RUN, SMALL, partitioner, tokens=tokens) for tokens in (64, 32)}
    with caplog.at_level("DEBUG", "jax"):
        shorter = ShorterSteps({tokens: step.lower(total, batch) for tokens, batch in batches.items()})
        for tokens in (128, 32, 64):  # nobody waits for what is not compiled ahead
            shorter.wait(tokens)
        assert caplog.text.count("Finished XLA compilation of jit(add_labels)") == 2
        for batch in batches.values():
            total = step(total, batch)
    assert caplog.text.count("Finished XLA compilation of jit(add_labels)") == 2


def test_a_step_that_cannot_be_compiled_ahead_is_told_and_waited_for_by_nobody(monkeypatch, caplog):
    def refuse(lowered: jax.stages.Lowered) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    ShorterSteps({64: jax.jit(jnp.sin).lower(1.0)}).wait(64)
    assert "the step for labels of up to 64 tokens was not compiled ahead: no compiler" in caplog.text


def test_encoder_outputs_and_augmentation_are_described_as_they_are_fed():
    run = config(
        freeze_encoder=True,
        per_device_train_batch_size=4,
        white_noise_prob=0.5,
        gradient_accumulation_steps=3,
    )
    described = compile_ahead.describe_step_batch(run, SMALL, 4, 32)
    assert described.seed_B.shape == described.lengths_B.shape == (3, 4)
    cached = dataclasses.replace(RUN, cache_encoder_states=True)
    described = compile_ahead.describe_step_batch(cached, SMALL, 4, 32)
    assert described.encoder_out_BSD.shape == (2, 4, SMALL.max_source_positions, SMALL.d_model)
    assert described.samples_BW is None
