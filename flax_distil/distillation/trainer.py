"""Distillation from end to end: check, load, train, evaluate, checkpoint, export."""

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.config import upload
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.checkpoints.training_checkpoints import TrainingCheckpoints
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import check_output_dir, check_writable, make_folder
from flax_distil.core.tree import merge
from flax_distil.data.fingerprints import weights_fingerprint
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.remote.retries import SourceError
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.training_data import TrainingData
from flax_distil.data.training.training_sources import TableSource
from flax_distil.distillation.config import DistilConfig
from flax_distil.distillation.evaluation.evaluator import Evaluator
from flax_distil.distillation.setup.compile_ahead import compile_largest
from flax_distil.distillation.setup.data import (
    BatchFeeder,
    DistilData,
    check_cacheable,
    distil_pipeline,
    load_data,
    open_cache,
)
from flax_distil.distillation.setup.models import DistilModels, check_models, load_models
from flax_distil.distillation.step_fns import TrainStepFns
from flax_distil.distillation.step_metrics import StepMetrics
from flax_distil.distillation.train_state import TrainState
from flax_distil.distillation.training_log import METRICS_NAME, TENSORBOARD_NAME, TrainingLog
from flax_distil.parallel.make_partitioner import join_devices
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.processes import all_gather_object, raise_on_all_hosts

log = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilResult:
    """What a run leaves.

    Attributes:
        output_dir: the exported student, as a Hugging Face folder.
        steps: optimizer updates done.
        evaluation: figures of the last evaluation, by data set.
        upload_error: why the upload failed; None if it did not, or was not asked for.
    """

    output_dir: Path
    steps: int
    evaluation: dict[str, dict[str, float]]
    upload_error: str | None = None


def run_distillation(config: DistilConfig) -> DistilResult:
    """Run a whole distillation (or fine-tuning) as configured.

    Raises:
        InputError: if models, data or flags do not fit; before anything is compiled or written.
    """
    with jax.default_matmul_precision(config.matmul_precision):
        return _run(config)


def _run(config: DistilConfig) -> DistilResult:
    partitioner = join_devices(config)
    leads = jax.process_index() == 0
    folder = raise_on_all_hosts(lambda: _checked_output(config) if leads else config.output_path.absolute())
    repository = raise_on_all_hosts(
        lambda: config.repository(config.hub_model_id, folder, "model") if leads else None
    )
    described = raise_on_all_hosts(lambda: check_models(config))
    tokenizer, settings = read_tokenizer(described.files)
    data = raise_on_all_hosts(lambda: load_data(config, tokenizer, described.config))
    check_cacheable(config, data.train, partitioner)
    batch_size = (
        config.per_device_train_batch_size * partitioner.batch_shards * config.gradient_accumulation_steps
    )
    max_steps = config.max_steps or _steps(config, data.train, batch_size)
    config.optimizer(max_steps)  # checks the schedule before weights are read
    models = load_models(config, partitioner)
    config = models.config  # what was left open is decided
    if leads:
        _prepare_output(folder, overwrite=config.overwrite_output_dir)
    all_gather_object(None)  # the folder is there for all
    programs = TrainStepFns(config, models.layout, partitioner, max_steps=max_steps)
    evaluator = Evaluator(config, data, models, programs, partitioner, tokenizer=tokenizer, settings=settings)
    run = Trainer(config, data, models, programs, evaluator, partitioner, max_steps=max_steps)
    with TrainingCheckpoints(
        folder / CHECKPOINTS_NAME, save_total_limit=config.save_total_limit
    ) as checkpoints:
        state, evaluation = run.train(checkpoints)
    skipped = SkippedSamples.joined(all_gather_object(data.train.skipped.get_state()))
    dropped = DropReport.joined(all_gather_object(run.pipeline.dropped().get_state()))
    if leads:
        if len(data.train.sources) > 1:
            log.info("%s", run.pipeline.proportions())
        if table := dropped.table():
            log.info("streamed training data, first pass\n%s", table)
        if skipped:
            log.warning("%s", skipped.report())
    trained = partitioner.device_get(state.params)
    error = raise_on_all_hosts(
        lambda: _export(config, models, trained, folder, repository) if leads else None
    )
    return DistilResult(
        output_dir=folder,
        steps=int(partitioner.device_get(state.step)),
        evaluation=evaluation,
        upload_error=error,
    )


def _steps(config: DistilConfig, train: TrainingData, batch_size: int) -> int:
    """Return the updates that the epochs take.

    Raises:
        InputError: if nobody knows how many samples an epoch has.
    """
    if train.samples is None or config.train_dataset_samples is not None:
        raise InputError(
            "max_steps is not given, and an epoch of streamed or mixed training data has no fixed length: "
            "give max_steps"
        )
    return math.ceil(config.num_train_epochs * train.samples / batch_size)


def _export(
    config: DistilConfig, models: DistilModels, trained: Params, folder: Path, repository: str | None
) -> str | None:
    """Write the student and upload it if asked to; return why the upload failed."""
    export_checkpoint(
        merge(trained, models.kept),
        models.student.config,
        folder,
        files=models.student.files,
        dtype=jnp.dtype(config.export_dtype),
    )
    return upload(folder, repository, config)


class Trainer:
    """The training loop and what it needs at hand."""

    def __init__(
        self,
        config: DistilConfig,
        data: DistilData,
        models: DistilModels,
        programs: TrainStepFns,
        evaluator: Evaluator,
        partitioner: Partitioner,
        *,
        max_steps: int,
    ):
        self.config, self.data, self.models = config, data, models
        self.programs, self.evaluator, self.partitioner = programs, evaluator, partitioner
        self.max_steps = max_steps
        self.cache = None
        if config.cache_encoder_states:
            shape = models.student.config.max_source_positions, models.student.config.d_model
            (table,) = data.train.sources
            assert isinstance(table, TableSource)  # checked before
            self.cache = open_cache(config, table.data, shape, self._encoder_fingerprint())
        self.feeder = BatchFeeder(
            partitioner,
            micro_batches=config.gradient_accumulation_steps,
            encode=programs.encode,
            encoder=models.frozen.get("encoder", {}),
            cache=self.cache,
        )
        self.pipeline = distil_pipeline(config, data, models.student.config, partitioner, self.cache)

    def train(self, checkpoints: TrainingCheckpoints) -> tuple[TrainState, dict[str, dict[str, float]]]:
        """Train to the last step; the pipeline is closed whatever happens."""
        try:
            return self._train(checkpoints)
        finally:
            self.pipeline.close()
            if self.cache is not None:
                self.cache.flush()

    def _train(self, checkpoints: TrainingCheckpoints) -> tuple[TrainState, dict[str, dict[str, float]]]:
        config = self.config
        state = self.programs.init(self.models.trainable)
        first_step = 0
        if config.resume_from_checkpoint:
            state, first_step = self._resume(checkpoints, state)
        tokens = self.pipeline.largest_bucket()
        compile_largest(config, self.models, self.programs, self.partitioner, state, tokens=tokens)
        evaluation: dict[str, dict[str, float]] = {}
        with TrainingLog(
            config.output_path,
            max_steps=self.max_steps,
            first_step=first_step,
            active=jax.process_index() == 0,
        ) as logs:
            progress = StepMetrics(config, logs, self.partitioner, self.max_steps)
            for step in range(first_step + 1, self.max_steps + 1):
                try:
                    batch = next(self.pipeline)
                except SourceError:
                    # Alone: other processes may be steps away, and save nothing now.
                    if step > first_step + 1 and jax.process_count() == 1 and progress.is_sound():
                        progress.flush()
                        self._save(checkpoints, step - 1, state)
                    raise
                state, metrics = self.programs.train(
                    state, self.models.frozen, self.models.teacher_params, self.feeder.feed(batch)
                )
                progress.add(step, metrics, batch)
                last = step == self.max_steps
                if last:
                    progress.check_end()
                # Before an evaluation, which may fail.
                if last or (step % config.save_steps == 0 and progress.is_sound()):
                    self._save(checkpoints, step, state)
                if self.data.evaluation and (last or (config.eval_steps and step % config.eval_steps == 0)):
                    progress.flush()
                    evaluation = self._evaluate(step, state.params, logs)
                    progress.restart_clock()
            progress.flush()
        return state, evaluation

    def _save(self, checkpoints: TrainingCheckpoints, step: int, state: TrainState) -> None:
        """Keep the state of training and of all processes' data."""
        positions = all_gather_object(self.pipeline.get_state())
        checkpoints.save(step, self.partitioner.unreplicate(state), {"pipelines": positions})
        if self.cache is not None:
            self.cache.flush()

    def _resume(self, checkpoints: TrainingCheckpoints, state: TrainState) -> tuple[TrainState, int]:
        wanted: Any = self.config.resume_from_checkpoint
        template = self.partitioner.unreplicate(state)
        restored = checkpoints.restore(template, None if wanted == "latest" else int(wanted))
        positions = restored.data["pipelines"]
        if len(positions) != jax.process_count():
            raise InputError(
                f"the run to resume had {len(positions)} processes and this one has {jax.process_count()}: "
                "resume it on as many"
            )
        self.pipeline.set_state(positions[jax.process_index()])
        checkpoints.drop_after(restored.step)
        log.info("resuming after step %d", restored.step)
        return self.partitioner.replicate_like(state, restored.state), restored.step

    def _evaluate(self, step: int, params: Params, logs: TrainingLog) -> dict[str, dict[str, float]]:
        results = self.evaluator.evaluate(params)
        for name, figures in results.items():
            prefix = "eval_" if len(results) == 1 else f"eval_{name}_"
            logs.write(step, figures, prefix=prefix)
            loss = f", loss {figures['loss']:.3f}" if "loss" in figures else ""
            logs.say(f"step {step}: {name}: WER {figures['wer']:.2f} %{loss}")
        return results

    def _encoder_fingerprint(self) -> str:
        encoder = self.partitioner.device_get(self.models.frozen["encoder"])
        return f"{weights_fingerprint(encoder)}-{self.config.compute.dtype}"


def _checked_output(config: DistilConfig) -> Path:
    """Return the run's folder; one that exists must be resumed or overwritten."""
    if config.resume_from_checkpoint is None:
        return check_output_dir(
            config.output_dir,
            overwrite=config.overwrite_output_dir,
            or_set="overwrite_output_dir or resume_from_checkpoint",
        )
    folder = check_writable(config.output_dir)
    if not (folder / CHECKPOINTS_NAME).is_dir():
        raise InputError(f"output_dir {config.output_dir!r} holds no checkpoints to resume from")
    return folder


def _prepare_output(folder: Path, *, overwrite: bool) -> None:
    """Make the folder; what an overwritten run would mix with this one goes now, the rest is replaced."""
    if overwrite:
        for name in (CHECKPOINTS_NAME, TENSORBOARD_NAME):
            shutil.rmtree(folder / name, ignore_errors=True)
    make_folder(folder)
    (folder / METRICS_NAME).touch()  # from now on the folder is known as a run's, wherever that stops
