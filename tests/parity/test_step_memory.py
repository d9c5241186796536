"""What the compiled step holds: nothing of a frozen leaf but the leaf itself."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from flax_distil.core.tree import flatten
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.loss import make_terms
from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.step_config import StepConfig
from flax_distil.distillation.train_state import init_state, partition_params
from flax_distil.distillation.train_step import train_step
from flax_distil.distillation.training_config import FreezeConfig, LossConfig, OptimizerConfig
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig


def byte_count(tree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def step():
    """Compile a step whose frozen weights outweigh everything else: deep encoder and teacher, little sound.

    The layers run as one loop. Unrolled, XLA's CPU compiler lifts every slice of the stacked weights out of
    the loop over samples, and temporarily holds them twice.
    """
    teacher = WhisperConfig(
        vocab_size=64, num_mel_bins=8, d_model=128, encoder_layers=12, decoder_layers=6,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=512, decoder_ffn_dim=512,
        max_source_positions=8, max_target_positions=16,
    )  # fmt: skip
    student = WhisperConfig(**teacher.to_huggingface() | {"decoder_layers": 1})
    options = ComputeOptions(use_scan=True)
    config = StepConfig(
        student=student, teacher=teacher, student_options=options, teacher_options=options,
        terms=make_terms(LossConfig()), chunk_size=8,
    )  # fmt: skip
    optimizer = make_optimizer(OptimizerConfig(max_steps=10, warmup_steps=1, weight_decay=0.1))
    trainable, frozen = partition_params(whisper_shapes(student), FreezeConfig())
    state = jax.eval_shape(lambda leaves: init_state(leaves, optimizer), trainable)
    batch = Batch(
        mel_BRM=jax.ShapeDtypeStruct((1, 1, 16, 8), jnp.float32),
        decoder_input_ids_BT=jax.ShapeDtypeStruct((1, 1, 8), jnp.int32),
        labels_BT=jax.ShapeDtypeStruct((1, 1, 8), jnp.int32),
        loss_mask_BT=jax.ShapeDtypeStruct((1, 1, 8), jnp.bool_),
    )
    held = {"decoder": whisper_shapes(teacher)["decoder"]}
    arguments = state, frozen, held, batch
    run = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)
    return run.lower(*arguments).compile().memory_analysis(), trainable, state, frozen, held, batch


def test_the_state_has_moments_for_trainable_leaves_and_no_other(step):
    _, trainable, state, frozen, _, _ = step
    assert set(flatten(state.params)) == set(flatten(trainable))
    assert not set(flatten(state.params)) & set(flatten(frozen))
    assert all(path.startswith("encoder/") for path in flatten(frozen))
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape]
    assert byte_count(moments) == 2 * byte_count(trainable)


def test_the_step_takes_each_frozen_leaf_once_and_returns_none(step):
    memory, trainable, state, frozen, teacher, batch = step
    once = byte_count(frozen) + byte_count(teacher) + byte_count(batch)
    small = 1024  # counters, the key, metrics, the table of results
    assert byte_count(state) <= 3 * byte_count(trainable) + small
    assert abs(memory.argument_size_in_bytes - byte_count(state) - once) <= small
    assert abs(memory.output_size_in_bytes - byte_count(state)) <= small
    assert memory.alias_size_in_bytes == byte_count(state)  # donated: the new state takes the old one's place


def test_the_step_keeps_no_gradient_and_no_copy_of_a_frozen_leaf_while_it_runs(step):
    memory, trainable, _, frozen, teacher, _ = step
    allowed = 3 * byte_count(trainable)  # gradients, updates, activations of one short sample
    assert allowed < byte_count(teacher) / 1.5 < byte_count(frozen)  # or the next line could not fail
    assert memory.temp_size_in_bytes < allowed
