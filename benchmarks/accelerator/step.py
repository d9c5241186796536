"""A distillation step of random weights: samples per second, share of the peak, memory, recompilations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.machine import Compilations, peak_memory, random_params, seconds_of
from benchmarks.accelerator.settings import Size
from flax_distil.core.arrays import Params
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
from flax_distil.model.operations import distillation_flop
from flax_distil.parallel.peak_flops import peak_flops

STEPS_BEFORE = 2


def check(size: Size) -> dict[str, Any]:
    """Measure the largest batch of ``size.train_batches`` that fits."""
    for batch in size.train_batches:
        try:
            return measure(size, batch)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or batch == size.train_batches[-1]:
                raise
            print(f"a batch of {batch} does not fit the memory", flush=True)
    raise ValueError("no batch is given")


def measure(size: Size, batch: int) -> dict[str, Any]:
    """Time steps of a batch: bfloat16 computations, float32 parameters, as ``precision half_mixed``."""
    teacher, student = size.teacher(), size.student()
    optimizer = make_optimizer(OptimizerConfig(max_steps=1000, warmup_steps=0))
    options = ComputeOptions(dtype="bfloat16")
    config = StepConfig(
        student=student, teacher=teacher, student_options=options, teacher_options=options,
        terms=make_terms(LossConfig()),
    )  # fmt: skip
    trainable, frozen, held = random_models(teacher, student)
    state = jax.jit(functools.partial(init_state, optimizer=optimizer), donate_argnums=0)(trainable)
    step = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)
    given = random_batch(size, batch)
    losses = []

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, frozen, held, given)
        losses.append(metrics["loss"])
        return state

    for _ in range(STEPS_BEFORE):
        jax.block_until_ready(run())
    compilations = Compilations()
    seconds = seconds_of(run, rounds=2 * size.rounds)
    flop = sum(distillation_flop(teacher, student, batch, size.labels).values())
    peak = peak_flops(jax.devices()[0].device_kind)
    return {
        "batch": batch,
        "labels": size.labels,
        "seconds": seconds,
        "samples_per_second": batch / seconds["median"],
        "tflop_per_second": flop / seconds["median"] / 1e12,
        "mfu": None if peak is None else flop / seconds["median"] / peak,
        "peak_memory_bytes": peak_memory(),
        "recompilations": compilations.count,
        "losses": [float(loss) for loss in losses[:3]],
    }


def random_models(teacher: WhisperConfig, student: WhisperConfig) -> tuple[Params, Params, Params]:
    """Return the trainable leaves (float32), the frozen ones and the teacher's decoder (bfloat16)."""
    shapes, taught = whisper_shapes(student), whisper_shapes(teacher)["decoder"]
    trainable, frozen = partition_params(shapes, FreezeConfig(freeze_encoder=True))
    return (
        random_params(trainable, "float32"),
        random_params(frozen, "bfloat16", seed=1),
        {"decoder": random_params(taught, "bfloat16", seed=2)},
    )


def random_batch(size: Size, batch: int) -> Batch:
    """Return one micro-batch of random features and labels, every label counting."""
    random, config = np.random.default_rng(0), size.teacher()
    tokens = random.integers(0, config.vocab_size, (2, 1, batch, size.labels), dtype=np.int32)
    features = random.normal(scale=0.5, size=(1, batch, 3000, config.num_mel_bins)).astype(np.float32)
    return Batch(
        mel_BRM=jnp.asarray(features),
        decoder_input_ids_BT=jnp.asarray(tokens[0]),
        labels_BT=jnp.asarray(tokens[1]),
        loss_mask_BT=jnp.ones((1, batch, size.labels), bool),
    )
