"""The command ``plan``: estimate, without a TPU, whether a distillation fits and how fast it could be."""

import dataclasses
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
from flax_distil.planning.compiled_jobs import PROMPT_LENGTH, encoding_job, generation_job, training_job
from flax_distil.planning.config import PlanConfig
from flax_distil.planning.plan import Job, Plan, make_plan
from flax_distil.planning.reports.comparison import comparison_as_text, mean_step_seconds
from flax_distil.planning.reports.labelling import labelling_as_json, labelling_as_text
from flax_distil.planning.reports.report import JobDescription, plan_as_json, plan_as_text
from flax_distil.planning.topologies import open_topology
from flax_distil.storage.output_dir import check_local

_PUBLISHED = {f"openai/whisper-{size}": size for size in PRESETS}


def run(config: PlanConfig) -> dict[str, Any]:
    """Compile the job, print the plan, write it if a file is named, and return its figures.

    Several slices or label lengths become a table, after the text of each plan.

    Raises:
        InputError: If the topology is unknown, its compiler is missing, or models or flags do not fit
            together.
    """
    if config.json is not None:
        check_local("json", config.json)
    if config.slices or config.label_shares:
        figures = _compare(config)
    else:
        text, figures = _plan(config)
        show(text)
    if config.json is not None:
        _write(user_path(config.json), figures)
    return figures


def _compare(config: PlanConfig) -> dict[str, Any]:
    """Plan for each slice and each label length, and print a table."""
    slices = config.slices or [(config.topology, None)]
    shares = dict(config.label_shares)
    lengths = [*shares] or [config.label_length]
    plans: list[dict[str, Any]] = []
    means: dict[str, float | None] = {}
    for name, own_price in slices:
        price = config.price_per_chip_hour if own_price is None else own_price
        of_slice = []
        for length in lengths:
            one = dataclasses.replace(
                config, topology=name, compare=None, price_per_chip_hour=price, label_length=length,
                label_mix=None, search_seconds=0.0,
            )  # fmt: skip
            text, figures = _plan(one)
            show(f"{text}\n")
            of_slice.append(figures)
        if shares:
            means[name] = mean_step_seconds(of_slice, shares)
        plans += of_slice
    show(comparison_as_text(plans, means))
    return {"plans": plans, "mean_step_seconds": means}


def _plan(config: PlanConfig) -> tuple[str, dict[str, Any]]:
    """Return the text and the figures of one plan."""
    planned = config.planned_run
    student, teacher = describe_models(planned, read_described)
    if config.label_length > student.config.max_target_positions:
        raise InputError(
            f"label_length {config.label_length} is too large: the decoder has "
            f"{student.config.max_target_positions} positions"
        )
    if config.what != "train" and config.label_length <= PROMPT_LENGTH:
        raise InputError(
            f"label_length {config.label_length} leaves nothing to decode: "
            f"{PROMPT_LENGTH} tokens are the prompt"
        )
    topology = open_topology(config.topology)
    partitioner = JitPartitioner(
        build_mesh(planned.devices.mesh_shape, topology.devices),
        shard_vocabulary=planned.devices.shard_vocabulary,
    )
    if planned.global_batch_size is not None:
        planned = divide_global_batch(planned, partitioner.batch_shards, planned.global_batch_size)
    shape = with_dropouts(planned, student.config)
    batch, micro_batches = planned.evaluation.batches.per_device_eval_batch_size, 1
    if config.what == "train":
        batch, micro_batches = planned.per_device_train_batch_size, planned.gradient_accumulation_steps
    description = JobDescription(
        teacher=planned.teacher.teacher_model_name_or_path,
        student=_student_name(planned, shape),
        label_length=config.label_length,
        samples_per_step=batch * micro_batches * partitioner.batch_shards,
        micro_batches=micro_batches,
        max_steps=config.run.optimizer.max_steps,
        window_seconds=student.config.window_seconds,
        price_per_chip_hour=config.price_per_chip_hour,
        notes=_notes(config),
    )

    def plan_of(job: Job) -> Plan:
        with jax.default_matmul_precision(planned.matmul_precision):
            return make_plan(job, topology, batch=batch, search_seconds=config.search_seconds)

    if config.what == "label":
        if teacher is None:
            raise InputError("what label needs the model that labels: give teacher_model_name_or_path")
        encoder = plan_of(encoding_job(config, partitioner, teacher.config))
        step = plan_of(generation_job(config, partitioner, teacher.config))
        new_tokens = config.label_length - PROMPT_LENGTH
        figures = labelling_as_json(encoder, step, description, new_tokens=new_tokens)
        return labelling_as_text(encoder, step, figures), figures
    if config.what == "train":
        plan = plan_of(
            training_job(
                planned, partitioner, shape, teacher.config if teacher else None,
                label_length=config.label_length,
            )
        )  # fmt: skip
    else:
        plan = plan_of(generation_job(config, partitioner, student.config))
    return plan_as_text(plan, description), plan_as_json(plan, description)


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
    if config.what == "label":
        return ("every window takes the steps of the longest label, and its language and prompt are given",)
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
