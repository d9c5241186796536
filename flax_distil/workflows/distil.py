"""Distillation from end to end: check, load, train, evaluate, checkpoint, export."""

import dataclasses
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_distil.core import Array, InputError, Params
from flax_distil.data import TrainingPipeline, weights_fingerprint
from flax_distil.distillation import TrainState, init_state, learning_rate_schedule
from flax_distil.parallel import data_mesh, put_replicated
from flax_distil.weights import TrainingCheckpoints, export_checkpoint
from flax_distil.workflows.distil_config import DistilConfig
from flax_distil.workflows.distil_data import (
    BatchFeeder,
    DistilData,
    load_data,
    open_cache,
    training_pipeline,
)
from flax_distil.workflows.distil_evaluation import StudentEvaluator
from flax_distil.workflows.distil_models import (
    DistilModels,
    check_models,
    exportable_params,
    load_models,
)
from flax_distil.workflows.distil_programs import DistilPrograms
from flax_distil.workflows.outputs import check_output_dir, check_writable, make_folder, upload
from flax_distil.workflows.tokenizer import read_tokenizer
from flax_distil.workflows.training_log import METRICS_NAME, TENSORBOARD_NAME, TrainingLog

log = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilResult:
    """What a run leaves.

    Attributes:
        output_dir: the exported student, as a Hugging Face folder.
        steps: optimiser updates done.
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
    folder = _checked_output(config)
    mesh = data_mesh()
    described = check_models(config)
    tokenizer, settings = read_tokenizer(described.files)
    data = load_data(config, tokenizer)
    batch_size = config.per_device_train_batch_size * mesh.size * config.gradient_accumulation_steps
    max_steps = config.max_steps or math.ceil(config.num_train_epochs * len(data.train) / batch_size)
    config.optimiser(max_steps)  # checks the schedule before weights are read
    models = load_models(config, mesh)
    _prepare_output(folder, overwrite=config.overwrite_output_dir)
    programs = DistilPrograms(config, models, mesh, max_steps=max_steps)
    evaluator = StudentEvaluator(config, data, models, programs, mesh, tokenizer=tokenizer, settings=settings)
    run = _Run(config, data, models, programs, evaluator, mesh, max_steps=max_steps, batch_size=batch_size)
    with TrainingCheckpoints(
        folder / CHECKPOINTS_NAME, save_total_limit=config.save_total_limit
    ) as checkpoints:
        state, evaluation = run.train(checkpoints)
    if data.skipped:
        log.warning("%s", data.skipped.report())
    export_checkpoint(
        exportable_params(config, state.params),
        models.student.config,
        folder,
        files=models.student.files,
        dtype=jnp.dtype(config.export_dtype),
    )
    error = None
    if config.push_to_hub:
        error = upload(folder, repo_id=config.hub_model_id, private=config.hub_private_repo)
    return DistilResult(output_dir=folder, steps=int(state.step), evaluation=evaluation, upload_error=error)


class _Run:
    """The training loop and what it needs at hand."""

    def __init__(
        self,
        config: DistilConfig,
        data: DistilData,
        models: DistilModels,
        programs: DistilPrograms,
        evaluator: StudentEvaluator,
        mesh: Mesh,
        *,
        max_steps: int,
        batch_size: int,
    ):
        self.config, self.data, self.models = config, data, models
        self.programs, self.evaluator, self.mesh = programs, evaluator, mesh
        self.max_steps = max_steps
        self.cache = None
        if config.cache_encoder_states:
            shape = models.student.config.max_source_positions, models.student.config.d_model
            self.cache = open_cache(config, data.train, shape, self._encoder_fingerprint())
        self.feeder = BatchFeeder(
            mesh,
            micro_batches=config.gradient_accumulation_steps,
            encode=programs.encode,
            encoder=models.frozen.get("encoder", {}),
            cache=self.cache,
        )
        self.pipeline = training_pipeline(config, data, batch_size, self.cache)

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
        state = put_replicated(init_state(self.models.trainable, self.programs.optimiser), self.mesh)
        first_step = 0
        if config.resume_from_checkpoint:
            state, first_step = _resume(config, checkpoints, state, self.pipeline)
        key = put_replicated(jax.random.key(config.seed), self.mesh)
        evaluation: dict[str, dict[str, float]] = {}
        with TrainingLog(config.output_path, max_steps=self.max_steps, first_step=first_step) as logs:
            interval = _Interval(config, logs, self.max_steps)
            for step in range(first_step + 1, self.max_steps + 1):
                batch = next(self.pipeline)
                seconds = float(batch["duration_B"].sum())
                state, metrics = self.programs.train(
                    state, self.models.frozen, self.models.teacher_params, self.feeder.feed(batch), key
                )
                interval.add(step, metrics, samples=len(batch["valid_B"]), audio_seconds=seconds)
                last = step == self.max_steps
                if last or step % config.save_steps == 0:  # before an evaluation, which may fail
                    checkpoints.save(step, state, {"pipeline": self.pipeline.get_state()})
                    if self.cache is not None:
                        self.cache.flush()
                if self.data.evaluation and (last or (config.eval_steps and step % config.eval_steps == 0)):
                    interval.flush()
                    evaluation = self._evaluate(step, state.params, logs)
                    interval.restart_clock()
            interval.flush()
        return state, evaluation

    def _evaluate(self, step: int, params: Params, logs: TrainingLog) -> dict[str, dict[str, float]]:
        results = self.evaluator.evaluate(params)
        for name, figures in results.items():
            prefix = "eval_" if len(results) == 1 else f"eval_{name}_"
            logs.write(step, figures, prefix=prefix)
            loss = f", loss {figures['loss']:.3f}" if "loss" in figures else ""
            logs.say(f"step {step}: {name}: WER {figures['wer']:.2f} %{loss}")
        return results

    def _encoder_fingerprint(self) -> str:
        return f"{weights_fingerprint(self.models.frozen['encoder'])}-{self.config.compute.dtype}"


class _Interval:
    """Figures between two log lines; those of a step are fetched after the next one is dispatched."""

    def __init__(self, config: DistilConfig, logs: TrainingLog, max_steps: int):
        self._logs, self._every = logs, config.logging_steps
        self._schedule = learning_rate_schedule(config.optimiser(max_steps))
        self._waiting: list[tuple[int, dict[str, Array]]] = []
        self._samples = self._audio_seconds = 0.0
        self._start = time.perf_counter()

    def add(self, step: int, metrics: dict[str, Array], *, samples: int, audio_seconds: float) -> None:
        """Note a dispatched step; write a line if the steps before it fill an interval."""
        if self._waiting and self._waiting[-1][0] % self._every == 0:
            self.flush()
        self._waiting.append((step, metrics))
        self._samples += samples
        self._audio_seconds += audio_seconds
        self._logs.advance(step)

    def flush(self) -> None:
        """Wait for the steps noted and write their means and rates."""
        if not self._waiting:
            return
        step = self._waiting[-1][0]
        fetched = jax.device_get([metrics for _, metrics in self._waiting])
        seconds = time.perf_counter() - self._start
        figures = {name: sum(float(m[name]) for m in fetched) / len(fetched) for name in fetched[0]}
        figures |= {
            "learning_rate": float(self._schedule(step - 1)),
            "samples_per_second": self._samples / seconds,
            "audio_seconds_per_second": self._audio_seconds / seconds,
            "seconds_per_step": seconds / len(fetched),
        }
        self._logs.write(step, figures)
        shown = {"loss": "loss", "learning_rate": "lr", "samples_per_second": "samples/s"}
        shown["audio_seconds_per_second"] = "audio-s/s"
        self._logs.show({label: figures[name] for name, label in shown.items()})
        self._waiting.clear()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what happened since the last line (an evaluation) out of the rates."""
        self._samples = self._audio_seconds = 0.0
        self._start = time.perf_counter()


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


def _resume(
    config: DistilConfig, checkpoints: TrainingCheckpoints, state: TrainState, pipeline: TrainingPipeline
) -> tuple[TrainState, int]:
    wanted: Any = config.resume_from_checkpoint
    restored = checkpoints.restore(state, None if wanted == "latest" else int(wanted))
    pipeline.set_state(restored.data["pipeline"])
    checkpoints.drop_after(restored.step)
    log.info("resuming after step %d", restored.step)
    return restored.state, restored.step
