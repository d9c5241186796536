"""The command ``plan``: estimate, without a TPU, whether a distillation fits and how fast it could be."""

import json
from pathlib import Path
from typing import Any

import jax

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.formats.files import CheckpointFiles, default_preprocessor
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.global_batch import divide_global_batch
from flax_distil.distillation.setup.models import describe_models, with_dropouts
from flax_distil.model.config import PRESETS, WhisperConfig
from flax_distil.parallel.jit_partitioner import JitPartitioner
from flax_distil.parallel.mesh import build_mesh
from flax_distil.planning.compiled_jobs import generation_job, training_job
from flax_distil.planning.config import PlanConfig
from flax_distil.planning.plan import make_plan
from flax_distil.planning.report import JobDescription, plan_as_json, plan_as_text
from flax_distil.planning.topologies import open_topology
from flax_distil.storage.output_dir import check_local

_PUBLISHED = {f"openai/whisper-{size}": size for size in PRESETS}


def run(config: PlanConfig) -> dict[str, Any]:
    """Compile the job, print the plan, write it if a file is named, and return its figures.

    Raises:
        InputError: If the topology is unknown, its compiler is missing, or models or flags do not fit
            together.
    """
    if config.json is not None:
        check_local("json", config.json)
    planned = config.planned_run
    student, teacher = describe_models(planned, read_described)
    if config.label_length > student.config.max_target_positions:
        raise InputError(
            f"label_length {config.label_length} is too large: the decoder has "
            f"{student.config.max_target_positions} positions"
        )
    topology = open_topology(config.topology)
    partitioner = JitPartitioner(
        build_mesh(planned.devices.mesh_shape, topology.devices),
        shard_vocabulary=planned.devices.shard_vocabulary,
    )
    if planned.global_batch_size is not None:
        planned = divide_global_batch(planned, partitioner.batch_shards, planned.global_batch_size)
    shape = with_dropouts(planned, student.config)
    if config.what == "train":
        job = training_job(
            planned, partitioner, shape, teacher.config if teacher else None, label_length=config.label_length
        )
        batch, micro_batches = planned.per_device_train_batch_size, planned.gradient_accumulation_steps
    else:
        job = generation_job(config, partitioner, student.config)
        batch, micro_batches = planned.evaluation.batches.per_device_eval_batch_size, 1
    with jax.default_matmul_precision(planned.matmul_precision):
        plan = make_plan(job, topology, batch=batch, search_seconds=config.search_seconds)
    description = JobDescription(
        teacher=planned.teacher.teacher_model_name_or_path,
        student=_student_name(planned, shape),
        label_length=config.label_length,
        samples_per_step=batch * micro_batches * partitioner.batch_shards,
        micro_batches=micro_batches,
        max_steps=config.run.optimizer.max_steps,
        price_per_chip_hour=config.price_per_chip_hour,
        notes=_notes(config),
    )
    show(plan_as_text(plan, description))
    figures = plan_as_json(plan, description)
    if config.json is not None:
        _write(user_path(config.json), figures)
    return figures


def read_described(source: ModelSource) -> Checkpoint:
    """Return the architecture of a checkpoint without its weights; published models need no network."""
    size = _PUBLISHED.get(source.name)
    if size is None or source.subfolder or user_path(source.name).is_dir():
        return load_checkpoint(source, config_only=True)
    config = WhisperConfig.preset(size)
    files = CheckpointFiles(
        origin=source.name,
        config=config.to_huggingface(),
        generation_config={},
        preprocessor_config=default_preprocessor(config.num_mel_bins),
        tokenizer_config={},
        tokenizer={},
    )
    return Checkpoint(config=config, params={}, files=files)


def _student_name(config: DistillConfig, shape: WhisperConfig) -> str:
    name = f" {config.model.model_name_or_path}" if config.model.model_name_or_path else ""
    return f"a student{name} of {shape.encoder_layers} encoder and {shape.decoder_layers} decoder layers"


def _notes(config: PlanConfig) -> tuple[str, ...]:
    if config.what == "generate":
        return ("one token per sample and step; encoder and prompt are not in the time",)
    run = config.run
    notes = [f"label_length {config.label_length}: a step costs less where labels are shorter"]
    if run.optimizer.max_steps is None:
        notes.append("max_steps is not given: the length of the run is unknown without its data")
    if run.devices.parallelism == "pmap":
        notes.append("parallelism pmap is planned as jit over data: every device does the same work")
    both = run.model.model_name_or_path and run.teacher.teacher_model_name_or_path
    if both and run.freeze.freeze_encoder is not False:
        notes.append("encoders of student and teacher are taken to be one if their shapes are equal")
    if run.cache_encoder_states:
        notes.append("encoder states are taken from their cache: the first epoch is slower")
    return tuple(notes)


def _write(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"json {str(path)!r} cannot be written: {error.strerror}") from error
