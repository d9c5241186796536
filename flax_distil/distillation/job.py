"""Distillation from end to end: check, load, train, export."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.upload import check_hub
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.checkpoints.training.training_checkpoints import (
    CHECKPOINTS_NAME,
    TrainingCheckpoints,
    check_supported,
)
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.core.process_age import command_age
from flax_distil.core.signals import Stage, enter_stage
from flax_distil.core.tree import merge
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.training_data import TrainingData
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.evaluation.evaluator import Evaluator
from flax_distil.distillation.evaluation.predictions import EVALUATIONS_NAME
from flax_distil.distillation.loss import Term
from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.goodput_record import GOODPUT_NAME
from flax_distil.distillation.monitoring.reporters.open_reporters import TENSORBOARD_NAME, check_reporters
from flax_distil.distillation.monitoring.reporters.weights_and_biases import WANDB_NAME
from flax_distil.distillation.monitoring.run_record import RUN_NAME, RunRecord, describe_run, step_to_resume
from flax_distil.distillation.monitoring.samples_record import SAMPLES_NAME, write_samples_record
from flax_distil.distillation.monitoring.training_log import METRICS_NAME
from flax_distil.distillation.publishing.publisher import Publisher, check_strategy
from flax_distil.distillation.publishing.run_origins import describe_origins
from flax_distil.distillation.saving.best_model import check_metric
from flax_distil.distillation.saving.finish import best_params, save_until_done
from flax_distil.distillation.setup.data import check_cacheable, load_data
from flax_distil.distillation.setup.data_hours import warn_of_few_hours
from flax_distil.distillation.setup.global_batch import choose_global_batch, global_batch_size
from flax_distil.distillation.setup.models import DistillModels, check_models, load_models
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.distillation.trainer import Trainer
from flax_distil.parallel.make_partitioner import join_devices
from flax_distil.parallel.processes import all_gather_object, raise_on_all_hosts
from flax_distil.parallel.same_settings import check_same_settings
from flax_distil.parallel.shared_folder import check_shared_folder
from flax_distil.storage.output_dir import check_output_dir, check_writable, local_results, make_folder
from flax_distil.storage.paths import AnyPath, ensure_file, remove_tree
from flax_distil.storage.run_lock import LOCK_NAME, RunLock

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillResult:
    """What a distillation leaves.

    Attributes:
        output_dir: Folder of the exported student, in the format of Hugging Face.
        steps: Number of optimizer updates done.
        evaluation: Scores of the last evaluation, by data set.
        upload_error: Why the upload failed; None if it did not, or was not asked for.
    """

    output_dir: AnyPath
    steps: int
    evaluation: dict[str, dict[str, float]]
    upload_error: str | None = None


def run(config: DistillConfig, *, loss_terms: Mapping[str, Term] | None = None) -> DistillResult:
    """Distil a teacher into a student, or fine-tune a model, as configured.

    Args:
        config: Every setting of the run.
        loss_terms: Terms of your own by name, added to the loss, or in the place of "ce", "kl" or
            "hidden_mse"; see ``distillation/loss.py``.

    Raises:
        InputError: If models, data or flags do not fit; before anything is compiled or written.
    """
    with jax.default_matmul_precision(config.matmul_precision), contextlib.ExitStack() as stack:
        goodput = stack.enter_context(contextlib.closing(Goodput(age=command_age())))
        trainer, folder, repository = _set_up(config, loss_terms or {}, goodput, stack)
        publisher = stack.enter_context(Publisher(trainer.models, folder, repository))
        with TrainingCheckpoints(
            str(folder / CHECKPOINTS_NAME), save_total_limit=config.checkpoints.save_total_limit
        ) as checkpoints:
            stack.callback(enter_stage, Stage.ANYWHERE)
            checkpoints.on_saved = publisher.saved
            state, evaluation = trainer.train(checkpoints)
            enter_stage(Stage.FINISHING)
            with goodput.during("save"):
                checkpoints.wait()
            goodput.end_steps()
            _report_samples(trainer)
            partitioner, models = trainer.partitioner, trainer.models
            trained, step = best_params(trainer, checkpoints, state)
            steps = int(partitioner.device_get(state.step))
            error = raise_on_all_hosts(
                lambda: (
                    _export(models, trained, folder, publisher, step) if jax.process_index() == 0 else None
                )
            )
            save_until_done(trainer, checkpoints, state)
        return DistillResult(output_dir=folder, steps=steps, evaluation=evaluation, upload_error=error)


def _set_up(
    given: DistillConfig,
    loss_terms: Mapping[str, Term],
    goodput: Goodput,
    stack: contextlib.ExitStack,
) -> tuple[Trainer, AnyPath, str | None]:
    """Return the trainer, the folder of the run, and the repository to upload to on the leading process."""
    config, partitioner = given, join_devices(given.devices)
    check_same_settings(flatten(config))
    leads = jax.process_index() == 0
    raise_on_all_hosts(lambda: check_reporters(config.reporting) if leads else None)
    check_strategy(config.hub, config.output.path)
    lock = RunLock(config.output.path)
    folder = raise_on_all_hosts(lambda: _checked_output(config, lock) if leads else config.output.path)
    repository = raise_on_all_hosts(
        lambda: check_hub(config.hub, config.hub.hub_model_id, folder, "model") if leads else None
    )
    config = choose_global_batch(config, partitioner.batch_shards, folder)
    student, teacher = raise_on_all_hosts(lambda: check_models(config))
    tokenizer, settings = read_tokenizer(student.files)
    data = raise_on_all_hosts(lambda: load_data(config, tokenizer, student.config))
    warn_of_few_hours(config, data.train)
    if config.checkpoints.load_best_model_at_end:
        check_metric(config.checkpoints.metric_for_best_model, [chosen.name for chosen in data.evaluation])
    check_cacheable(config, data.train, partitioner)
    batch_size = global_batch_size(config, partitioner.batch_shards)
    max_steps = config.optimizer.max_steps or _steps(config, data.train, batch_size)
    optimizer = config.optimizer_for(max_steps)  # checks the schedule before weights are read
    models = load_models(config, partitioner, loss_terms)
    config = models.config  # what was left open is decided

    def begin() -> None:
        make_folder(folder)
        stack.enter_context(lock)
        described = describe_run(given, config, data.train, max_steps=max_steps, batch_size=batch_size)
        origins = describe_origins(
            config, data, student=student.config, teacher=None if teacher is None else teacher.config
        )
        record = RunRecord(folder, dataclasses.replace(described, origins=origins))
        resume = config.checkpoints
        step = step_to_resume(folder / CHECKPOINTS_NAME, resume.resume_from_checkpoint)
        if step is not None:
            record.compare(step=step, allow_changes=resume.allow_changed_settings)
        _prepare_output(folder, overwrite=config.output.overwrite_output_dir)
        record.write(partitioner)
        write_samples_record(folder, data.train.dropped, data.train.skipped)

    raise_on_all_hosts(lambda: begin() if leads else None)
    check_shared_folder(folder)
    goodput.open(folder if leads else None)
    fns = TrainStepFns(optimizer, models.shardings, partitioner)
    evaluator = Evaluator(data, models, fns, partitioner, tokenizer=tokenizer, settings=settings)
    trainer = Trainer(data, models, fns, evaluator, partitioner, max_steps=max_steps, goodput=goodput)
    return trainer, folder, repository


def _steps(config: DistillConfig, train: TrainingData, batch_size: int) -> int:
    """Return the number of updates that the epochs take.

    Raises:
        InputError: If the number of samples of an epoch is not known.
    """
    if train.samples is None or config.data.train_dataset_samples is not None:
        raise InputError(
            "max_steps is not given, and an epoch of streamed or mixed training data has no fixed length: "
            "give max_steps"
        )
    return math.ceil(config.optimizer.num_train_epochs * train.samples / batch_size)


def _report_samples(trainer: Trainer) -> None:
    """Log which samples of all processes were used, dropped and skipped."""
    train, pipeline = trainer.data.train, trainer.pipeline
    skipped = SkippedSamples.merge(all_gather_object(train.skipped.get_state()))
    dropped, proportions = pipeline.dropped(), pipeline.proportions()
    if jax.process_index() != 0:
        return
    both = DropReport.merge([train.dropped.get_state(), dropped.get_state()])
    write_samples_record(trainer.config.output.path, both, skipped)
    if len(train.sources) > 1:
        log.info("%s", proportions)
    if table := dropped.table():
        log.info("streamed training data, first pass\n%s", table)
    if skipped:
        log.warning("%s", skipped.report())


def _export(
    models: DistillModels, trained: Params, folder: AnyPath, publisher: Publisher, step: int
) -> str | None:
    """Write the student and its card, and upload them if asked to; return why the upload failed."""
    with local_results(folder, stale=("model*.safetensors*",), last=["config.json"]) as local:
        export_checkpoint(
            merge(trained, models.kept),
            models.student.config,
            local,
            files=models.student.files,
            dtype=jnp.dtype(models.config.weights.export_dtype),
        )
        publisher.write_card(local, step)
    return publisher.push_result()


def _checked_output(config: DistillConfig, lock: RunLock) -> AnyPath:
    """Return the folder of the run; one that exists must be resumed or overwritten."""
    check_supported(config.output.path)
    lock.check()
    resume = config.checkpoints.resume_from_checkpoint
    if resume is None or (resume == "auto" and not _is_started(config.output.path)):
        return check_output_dir(
            str(config.output.output_dir),
            overwrite=config.output.overwrite_output_dir,
            or_set="overwrite_output_dir or resume_from_checkpoint",
        )
    folder = check_writable(str(config.output.output_dir))
    if resume != "auto" and not (folder / CHECKPOINTS_NAME).is_dir():
        raise InputError(f"output_dir {config.output.output_dir!r} holds no checkpoints to resume from")
    return folder


def _is_started(folder: AnyPath) -> bool:
    """Return whether a run has begun in a folder, however early it ended."""
    remains = {METRICS_NAME, CHECKPOINTS_NAME, TENSORBOARD_NAME, RUN_NAME, LOCK_NAME, GOODPUT_NAME}
    return folder.is_dir() and any(path.name in remains for path in folder.iterdir())


def _prepare_output(folder: AnyPath, *, overwrite: bool) -> None:
    """Make the folder; what an overwritten run would mix with this one goes now, the rest is replaced."""
    if overwrite:
        for name in (GOODPUT_NAME, RUN_NAME, SAMPLES_NAME, WANDB_NAME):
            (folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS_NAME, TENSORBOARD_NAME, EVALUATIONS_NAME):
            remove_tree(folder / name)
    make_folder(folder)
    ensure_file(folder / METRICS_NAME)  # from now on the folder is known as a run's, wherever that stops
