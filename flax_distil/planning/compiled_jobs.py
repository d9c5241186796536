"""The programs that a plan compiles: those of a real run, with described arrays instead of allocated ones."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.nested import replace
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.compile_ahead import describe_step_batch
from flax_distil.distillation.setup.encoder_choice import choose_encoder, shape_difference
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.distillation.setup.step_work import step_work
from flax_distil.model.assembly import decode_shapes
from flax_distil.model.config import WhisperConfig
from flax_distil.model.operations import decode_step_bytes, decode_step_flop, encoder_flop, mel_flop
from flax_distil.parallel.jit_partitioner import JitPartitioner
from flax_distil.parallel.partitioner import MICRO_BATCHES, ROWS
from flax_distil.planning.config import PlanConfig
from flax_distil.planning.hlo import ProgramCosts, program_costs
from flax_distil.planning.memory import bytes_per_chip
from flax_distil.planning.plan import Job
from flax_distil.text.special_tokens import TIMESTAMP_COUNT, SpecialTokens
from flax_distil.transcription.decode_fns import ModelShape, jit_decode_fns

PROMPT_LENGTH = 4
"""Tokens that decoding begins with: start, language, task, no timestamps."""


def training_job(
    config: DistillConfig,
    partitioner: JitPartitioner,
    student: WhisperConfig,
    teacher: WhisperConfig | None,
    *,
    label_length: int,
) -> Job:
    """Return the training step of a distillation as a job that can be planned.

    Args:
        config: Configuration of the distillation.
        partitioner: Partitioner over the devices of a topology.
        student: Architecture of the student, with the dropout rates of the distillation.
        teacher: Architecture of the teacher; None for fine-tuning on labels alone.
        label_length: Number of tokens per sample.
    """
    difference = None if teacher is None else shape_difference(student, teacher)
    teacher = teacher if config.uses_teacher else None
    choice = choose_encoder(config, student, teacher, difference)
    config = replace(config, freeze_encoder=choice.freeze)
    shardings = TrainShardings(
        config, partitioner, student=student, teacher=teacher, shares_encoder=choice.shared,
        special=_special_tokens(student.vocab_size),
    )  # fmt: skip
    optimizer = config.optimizer_for(config.optimizer.max_steps or 1)
    train: Any = TrainStepFns(optimizer, shardings, partitioner).train
    state, frozen, held = (
        partitioner.describe(tree.shapes, tree.specs)
        for tree in (shardings.state(optimizer), shardings.frozen, shardings.teacher)
    )
    trees = {
        "teacher": held,
        "frozen encoder": frozen.get("encoder", {}),
        "student": [state.params, frozen.get("decoder", {})],
        "moments": state.opt_state,
    }

    def described(batch: int) -> Any:
        rows = batch * partitioner.batch_shards
        arrays = describe_step_batch(config, student, rows, label_length)
        return partitioner.describe(arrays, MICRO_BATCHES)

    def lower(batch: int) -> tuple[jax.stages.Lowered, Mapping[str, Any]]:
        arrays = described(batch)
        return train.lower(state, frozen, held, arrays), {**trees, "batch": arrays}

    def least_bytes(batch: int) -> float:
        """Count every weight and the batch as read, and the state as written."""
        return float(bytes_per_chip([trees, described(batch), state]))

    def flops(batch: int) -> dict[str, float]:
        work = step_work(config, shardings, batch, label_length)
        return {name: flop / partitioner.mesh.shape["tensor"] for name, flop in work.flop().items()}

    def int8_flops(batch: int) -> float:
        if not config.teacher_options.int8:
            return 0.0
        return (
            step_work(config, shardings, batch, label_length).int8_flop() / partitioner.mesh.shape["tensor"]
        )

    return Job(
        what="train",
        lower=lower,
        flops=flops,
        int8_flops=int8_flops,
        least_bytes=least_bytes,
        costs=lambda text, schedules: program_costs(text, schedules=schedules),
    )


def encoding_job(config: PlanConfig, partitioner: JitPartitioner, model: WhisperConfig) -> Job:
    """Return the encoder of a model, from audio samples on, as a job that can be planned."""
    options, dtype = config.run.student_options, jnp.dtype(config.run.student_options.dtype)
    held = _described_weights(partitioner, model, dtype)
    shape = ModelShape.on(partitioner, model, options)
    processors = LogitsProcessors(special=_special_tokens(model.vocab_size))
    encode: Any = jit_decode_fns(partitioner, shape, processors, config.search, 1).encode_samples
    shares = partitioner.mesh.shape["tensor"]

    def described(batch: int) -> Any:
        rows = batch * partitioner.batch_shards
        samples = jax.ShapeDtypeStruct((rows, model.window_samples), jnp.float32)
        return partitioner.describe({"samples_BW": samples}, ROWS)

    def lower(batch: int) -> tuple[jax.stages.Lowered, Mapping[str, Any]]:
        arrays = described(batch)
        return encode.lower(held["encoder"], arrays), {"encoder": held["encoder"], "batch": arrays}

    return Job(
        what="encode",
        lower=lower,
        flops=lambda batch: {
            "log_mel": mel_flop(model, batch),
            "encoder": encoder_flop(model, batch) / shares,
        },
        least_bytes=lambda batch: float(bytes_per_chip([held["encoder"], described(batch)])),
        costs=lambda text, schedules: program_costs(text, schedules=schedules),
        resident={"decoder": held["decoder"]},
    )


def _described_weights(partitioner: JitPartitioner, model: WhisperConfig, dtype: Any) -> Any:
    """Return the weights of a model in the layout of decoding, as described arrays on the devices."""
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), decode_shapes(model))
    return partitioner.describe(weights, partitioner.weight_specs(weights))


def generation_job(config: PlanConfig, partitioner: JitPartitioner, student: WhisperConfig) -> Job:
    """Return one decoding step of a model, greedy or with beams, as a job that can be planned."""
    options, beams = config.run.student_options, config.search.num_beams
    dtype, tokens = jnp.dtype(options.dtype), config.label_length - PROMPT_LENGTH
    held = _described_weights(partitioner, student, dtype)
    shares = partitioner.mesh.shape["tensor"]  # devices that decode one row together
    processors = LogitsProcessors(special=_special_tokens(student.vocab_size))
    shape = ModelShape.on(partitioner, student, options)
    fns = jit_decode_fns(partitioner, shape, processors, config.search, tokens)
    generate: Any = fns.search.generate
    slots = PROMPT_LENGTH + beams * tokens

    def lower(batch: int) -> tuple[jax.stages.Lowered, Mapping[str, Any]]:
        rows, states = batch * partitioner.batch_shards, (student.max_source_positions, student.d_model)
        arrays = partitioner.describe(
            {
                "encoder_out_BSD": jax.ShapeDtypeStruct((rows, *states), dtype),
                "prompt_BP": jax.ShapeDtypeStruct((rows, PROMPT_LENGTH), jnp.int32),
                "prompt_length_B": jax.ShapeDtypeStruct((rows,), jnp.int32),
                "limit_B": jax.ShapeDtypeStruct((rows,), jnp.int32),
            },
            ROWS,
        )
        return generate.lower(held["decoder"], arrays), {"decoder": held["decoder"], "batch": arrays}

    def costs(text: str, schedules: Mapping[str, float]) -> ProgramCosts:
        """Return the costs of one step: those of the loops, divided by their number of steps."""
        loops = program_costs(text, unknown_trips=tokens, schedules=schedules)
        before = program_costs(text, unknown_trips=0, schedules=schedules)
        steps = tokens * max(1, loops.unknown_loops)
        return ProgramCosts().plus(loops.plus(before, -1.0), 1 / steps)

    return Job(
        what="generate",
        lower=lower,
        flops=lambda batch: {"decoding": decode_step_flop(student, batch, slots, beams=beams) / shares},
        least_bytes=lambda batch: decode_step_bytes(student, batch, slots, dtype.itemsize) / shares,
        costs=costs,
        resident={"encoder": held["encoder"]},
    )


def _special_tokens(vocab_size: int) -> SpecialTokens:
    """Return special tokens without reading a vocabulary: which ids are special does not change the work."""
    timestamp_begin = max(8, vocab_size - TIMESTAMP_COUNT)
    return SpecialTokens(
        eot=timestamp_begin - 8,
        sot=timestamp_begin - 7,
        sot_prev=timestamp_begin - 3,
        no_speech=timestamp_begin - 2,
        no_timestamps=timestamp_begin - 1,
        timestamp_begin=timestamp_begin,
        vocab_size=vocab_size,
    )
