"""The training loop: batches, updates, evaluations, checkpoints."""

import contextlib
import functools
import logging
import time
from typing import Any

import jax

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.core.errors import InputError, Interrupted
from flax_distil.core.nested import flatten
from flax_distil.core.signals import Stage, enter_stage, interrupted
from flax_distil.data.fingerprints import encoder_fingerprint
from flax_distil.data.training.training_sources import TableSource
from flax_distil.distillation.evaluation.evaluator import Evaluator
from flax_distil.distillation.monitoring.goodput import Goodput
from flax_distil.distillation.monitoring.stall_watch import StallWatch
from flax_distil.distillation.monitoring.step_metrics import StepMetrics
from flax_distil.distillation.monitoring.step_profile import StepProfile
from flax_distil.distillation.monitoring.training_log import TrainingLog
from flax_distil.distillation.monitoring.utilization import Utilization
from flax_distil.distillation.monitoring.weight_histograms import weight_histograms
from flax_distil.distillation.saving.best_model import (
    BestModel,
    Scores,
    logged_scores,
    score_prefixes,
)
from flax_distil.distillation.saving.checkpoint_facts import checkpoint_facts
from flax_distil.distillation.saving.save_schedule import SaveSchedule
from flax_distil.distillation.setup.compile_ahead import (
    ShorterSteps,
    check_memory,
    empty_batch,
    memory_errors_explained,
)
from flax_distil.distillation.setup.data import DistillData, make_pipeline, open_cache, prepare_batch
from flax_distil.distillation.setup.models import DistillModels
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.distillation.setup.step_work import step_work
from flax_distil.distillation.train_state import TrainState
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.peak_flops import peak_flops
from flax_distil.parallel.preemption import must_stop
from flax_distil.storage.retries import SourceError

log = logging.getLogger(__name__)


class Trainer:
    """The training loop and what it needs."""

    def __init__(
        self,
        data: DistillData,
        models: DistillModels,
        fns: TrainStepFns,
        evaluator: Evaluator,
        partitioner: Partitioner,
        *,
        max_steps: int,
        goodput: Goodput,
    ):
        """Open the pipeline of training batches; nothing is compiled before :meth:`train`.

        Args:
            data: Training data and evaluation sets.
            models: Student and teacher, with the configuration of the run.
            fns: The jitted functions.
            evaluator: Evaluates the student.
            partitioner: The devices.
            max_steps: Number of optimizer updates in all.
            goodput: Measures what wall time is spent on.
        """
        self.config, self.data, self.models = models.config, data, models
        self.fns, self.evaluator, self.partitioner = fns, evaluator, partitioner
        self.max_steps, self.goodput = max_steps, goodput
        self.cache = None
        if self.config.cache_encoder_states:
            shape = models.student.config.max_source_positions, models.student.config.d_model
            (table,) = data.train.sources
            assert isinstance(table, TableSource)  # checked before
            self.cache = open_cache(self.config, table.data, shape, self._encoder_fingerprint())
        self.prepare_batch = functools.partial(
            prepare_batch,
            partitioner=partitioner,
            micro_batches=self.config.gradient_accumulation_steps,
            cache=self.cache,
            encode=functools.partial(fns.encode, models.frozen.get("encoder", {})),
        )
        self.best = BestModel(self.config.checkpoints.metric_for_best_model)
        self.pipeline = make_pipeline(self.config, data, models.student.config, partitioner, self.cache)

    def train(self, checkpoints: TrainingCheckpoints) -> tuple[TrainState, Scores]:
        """Train to the last step; the pipeline is closed whatever happens.

        Returns:
            The last state, and the scores of the last evaluation.
        """
        config, fns, models, goodput = self.config, self.fns, self.models, self.goodput
        evaluation: Scores = {}
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            state, first_step = self._first_state(checkpoints)
            recorded = self._evaluation_after(first_step)
            if first_step == self.max_steps and recorded is not None:
                return state, recorded
            # The longest labels are compiled now: a lack of memory is known at once, not hours later.
            tokens, start = self.pipeline.largest_bucket(), time.perf_counter()
            batch = empty_batch(config, models.student.config, self.partitioner, tokens)
            with memory_errors_explained(config, tokens), goodput.during("compile"):
                compiled = fns.train.lower(state, models.frozen, models.teacher_params, batch).compile()
            check_memory(config, compiled, batch, tokens, seconds=time.perf_counter() - start)
            shorter = self._compile_shorter(state, tokens)
            stack.callback(shorter.close)
            logs = stack.enter_context(self._open_logs(first_step))
            progress = self._step_metrics(logs)
            goodput.begin_steps(first_step)
            schedule = SaveSchedule(config.checkpoints, checkpoints)
            stack.enter_context(self._stall_watch())
            profile = StepProfile(config.checkpoints.profile_steps, config.output.path, first_step=first_step)
            stack.enter_context(profile)
            enter_stage(Stage.BETWEEN_STEPS)
            if recorded is None:
                evaluation = self._evaluate(first_step, state, logs, checkpoints)
            for step in range(first_step + 1, self.max_steps + 1):
                if must_stop():
                    progress.flush()
                    raise self._stopped(checkpoints, step - 1, state)
                profile.at(step, state)
                try:
                    with goodput.waiting_for_data():
                        batch = next(self.pipeline)
                except SourceError:
                    # Alone: other processes may be steps away, and save nothing now.
                    if step > first_step + 1 and jax.process_count() == 1 and progress.is_sound():
                        progress.flush()
                        self.save(checkpoints, step - 1, state)
                    raise
                arrays = self.prepare_batch(batch)
                with goodput.during("compile"):
                    shorter.wait(arrays.labels_BT.shape[-1])
                state, metrics = fns.train(state, models.frozen, models.teacher_params, arrays)
                goodput.dispatched(step, metrics)
                progress.add(step, metrics, batch)
                is_last, is_evaluated = step == self.max_steps, self._is_evaluated(step)
                if is_last:
                    progress.check_end()
                is_due = schedule.is_due(step) or (is_evaluated and config.checkpoints.load_best_model_at_end)
                # Before an evaluation, which may fail.
                if is_last or (is_due and progress.is_sound()):
                    progress.flush_full()
                    self.save(checkpoints, step, state)
                    schedule.restart()
                if is_evaluated:
                    progress.flush()
                    evaluation = self._evaluate(step, state, logs, checkpoints)
                    progress.restart_clock()
            progress.flush()
        return state, evaluation

    def _compile_shorter(self, state: TrainState, longest: int) -> ShorterSteps:
        """Compile the step for shorter labels; on a CPU that would take the cores of the training itself."""
        lowered: dict[int, Any] = {}
        if jax.default_backend() != "cpu":
            for tokens in self.pipeline.buckets_below(longest):
                batch = empty_batch(self.config, self.models.student.config, self.partitioner, tokens)
                lowered[tokens] = self.fns.train.lower(
                    state, self.models.frozen, self.models.teacher_params, batch
                )
        return ShorterSteps(lowered)

    def _open_logs(self, first_step: int) -> TrainingLog:
        return TrainingLog(
            self.config.output.path,
            max_steps=self.max_steps,
            first_step=first_step,
            active=jax.process_index() == 0,
            reporting=self.config.reporting,
            settings={name: value for name, value in flatten(self.config).items() if value is not None},
        )

    def _step_metrics(self, logs: TrainingLog) -> StepMetrics:
        peak = peak_flops(jax.devices()[0].device_kind)
        return StepMetrics(
            self.config,
            logs,
            self.partitioner,
            self.max_steps,
            goodput=self.goodput,
            utilization=Utilization(
                step_work(self.config, self.models.shardings, batch=1, tokens=1),
                peak=None if peak is None else peak * jax.device_count(),
                batch_shards=self.partitioner.shard_count,
            ),
        )

    def _close(self) -> None:
        self.pipeline.close()
        if self.cache is not None:
            self.cache.flush()

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What each checkpoint tells about the run."""
        return checkpoint_facts(self.config, self.models.student, self.models.kept)

    def save(self, checkpoints: TrainingCheckpoints, step: int, state: TrainState) -> None:
        """Keep the state of training, and the position of the run in its data."""
        about = self.facts | {"best": self.best.to_json()}
        with self.goodput.during("save"):
            position = {"pipeline": self.pipeline.get_state()}
            checkpoints.kept_step = self.best.step if self.config.checkpoints.load_best_model_at_end else None
            checkpoints.save(step, self.partitioner.unreplicate(state), position, about=about)
            if self.cache is not None:
                self.cache.flush()
        if checkpoints.failure is None:
            self.goodput.saved(step)

    def _first_state(self, checkpoints: TrainingCheckpoints) -> tuple[TrainState, int]:
        """Return the state to begin with, of a checkpoint if asked for, and the number of updates done."""
        state: TrainState = self.fns.init(self.models.trainable)
        wanted: Any = self.config.checkpoints.resume_from_checkpoint
        if not wanted or (wanted == "auto" and not checkpoints.steps()):
            return state, 0
        template = self.partitioner.unreplicate(state)
        restored = checkpoints.restore(template, None if wanted in ("latest", "auto") else int(wanted))
        if restored.step > self.max_steps:
            raise InputError(
                f"checkpoint {restored.step} is beyond max_steps {self.max_steps}: give more steps, or an "
                "earlier step as resume_from_checkpoint"
            )
        self.pipeline.set_state(restored.data.get("pipeline", {}))
        self.best.resume(restored.about.get("best"))
        log.info("resuming after step %d", restored.step)
        return self.partitioner.replicate_like(state, restored.state), restored.step

    def _stopped(self, checkpoints: TrainingCheckpoints, step: int, state: TrainState) -> Interrupted:
        """Save what is new, and return the error with which the run ends."""
        if step == 0:
            return interrupted("no update was made yet, and the same command begins again")
        self.save(checkpoints, step, state)
        checkpoints.wait()
        if checkpoints.failure is not None:
            return interrupted(f"step {step} could not be saved; the same command goes on before it")
        return interrupted(f"step {step} is saved, and the same command goes on")

    def _stall_watch(self) -> StallWatch:
        minutes = self.config.checkpoints.stall_timeout_minutes
        return StallWatch(self.goodput, seconds=60 * minutes, folder=self.config.output.path)

    def _evaluate(
        self, step: int, state: TrainState, logs: TrainingLog, checkpoints: TrainingCheckpoints
    ) -> Scores:
        """Evaluate and log the scores; an evaluation that is stopped is done again by the next attempt."""
        try:
            with self.goodput.during("evaluation"):
                results = self.evaluator.evaluate(state.params)
        except Interrupted:
            self.save(checkpoints, step, state)
            raise
        for name, prefix in score_prefixes([*results]).items():
            scores = results[name]
            logs.write(step, scores, prefix=prefix)
            loss = f", loss {scores['loss']:.3f}" if "loss" in scores else ""
            logs.say(f"step {step}: {name}: WER {scores['wer']:.2f} %{loss}")
        with self.goodput.during("evaluation"):
            logs.predictions(step, self.evaluator.predictions)
            if self.config.reporting.has_histograms:
                logs.histograms(step, weight_histograms(state.params, self.partitioner))
        self.best.update(step, results)
        return results

    def _is_evaluated(self, step: int) -> bool:
        every = self.config.evaluation.eval_steps
        return bool(self.data.evaluation) and (step == self.max_steps or bool(every and step % every == 0))

    def _evaluation_after(self, step: int) -> Scores | None:
        """Return the logged evaluation of a step that is resumed; None if one is due and was not finished."""
        if step == 0 or not self._is_evaluated(step):
            return {}
        scores = logged_scores(
            self.config.output.path, step, [chosen.name for chosen in self.data.evaluation]
        )
        self.best.update(step, scores)
        return scores or None

    def _encoder_fingerprint(self) -> str:
        encoder = self.partitioner.device_get(self.models.frozen["encoder"])
        return encoder_fingerprint(encoder, self.config.student_options.dtype)
