"""Evaluation during training: teacher-forced losses and the WER of what the student generates."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax

from flax_distil.core.arrays import Params
from flax_distil.core.signals import interrupted
from flax_distil.core.tree import merge
from flax_distil.data.training.batches import Batch
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.distillation.evaluation.data import EvaluationSet
from flax_distil.distillation.evaluation.predictions import Prediction, batch_predictions, kept_predictions
from flax_distil.distillation.setup.data import DistillData
from flax_distil.distillation.setup.models import DistillModels
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.distillation.vocabulary_loss import TokenLossSums
from flax_distil.metrics.word_errors import ErrorCounts
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.preemption import must_stop
from flax_distil.parallel.processes import all_gather_object
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.encoded_windows import EncodedWindows, windows_to_decode
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.short_form import ShortFormTranscriber


class Evaluator:
    """Evaluates the student on every evaluation set; a frozen encoder runs once per batch.

    Attributes:
        predictions: Samples of the last evaluation that are worth a look, by the name of their set.
    """

    def __init__(
        self,
        data: DistillData,
        models: DistillModels,
        fns: TrainStepFns,
        partitioner: Partitioner,
        *,
        tokenizer: WhisperTokenizer,
        settings: GenerationSettings,
    ):
        """Describe the evaluation; nothing is compiled before the first."""
        self._config, self._data, self._models = models.config, data, models
        self._fns, self._partitioner = fns, partitioner
        self._tokenizer, self._settings = tokenizer, settings
        self.predictions: dict[str, list[Prediction]] = {}

    def evaluate(self, params: Params) -> dict[str, dict[str, float]]:
        """Return the scores of every evaluation set, by its name.

        The scores are ``loss``, ``ce_loss`` and ``kl_loss`` (temperature 1, per label token), ``accuracy``,
        ``wer`` (percent), ``samples``, ``skipped`` and ``seconds``.

        Raises:
            Interrupted: Between two batches, if all processes are to stop there.
        """
        return {chosen.name: self._evaluate_set(chosen, params) for chosen in self._data.evaluation}

    def _evaluate_set(self, chosen: EvaluationSet, params: Params) -> dict[str, float]:
        start = time.perf_counter()
        transcriber = self._transcriber(chosen, params)
        partitioner = self._partitioner
        pipeline = self._pipeline(chosen)
        sums: list[TokenLossSums] = []
        errors, samples = ErrorCounts(), 0
        kept: list[Prediction] = []
        encoded = self._run_batches(pipeline, params, transcriber, sums)
        for batch, transcripts in transcriber.collect_in_turn(encoded):
            samples += int(batch.valid_B.sum())
            texts = [transcript.text for transcript in transcripts]
            counts, predictions = batch_predictions(batch, texts, chosen.normalize)
            errors, kept = errors + counts, kept_predictions(kept + predictions)
        skipped = len(pipeline.skipped)
        # The sums are global already; processes of one tensor group transcribed the same rows.
        counted: list[Any] = [partitioner.shard_index, dataclasses.asdict(errors), samples, skipped]
        counted.append([dataclasses.asdict(sample) for sample in kept])
        parts = {index: part for index, *part in all_gather_object(counted)}
        kept = kept_predictions(Prediction(**sample) for part in parts.values() for sample in part[3])
        self.predictions[chosen.name] = [sample.with_diff(chosen.normalize) for sample in kept]
        figures = {
            "wer": sum((ErrorCounts(**part[0]) for part in parts.values()), ErrorCounts()).wer,
            "samples": sum(part[1] for part in parts.values()),
            "skipped": sum(part[2] for part in parts.values()),
            "seconds": time.perf_counter() - start,
        }
        return _per_token(partitioner.device_get(sums[0])) | figures if sums else figures

    def _pipeline(self, chosen: EvaluationSet) -> EvaluationPipeline:
        partitioner = self._partitioner
        return EvaluationPipeline(
            chosen.source,
            PipelineConfig(
                batch_size=self._config.evaluation.batches.per_device_eval_batch_size
                * partitioner.local_batch_shards,
                num_threads=self._config.data.reading.dataloader_num_workers,
                window_seconds=self._models.student.config.window_seconds,
                shard_index=partitioner.shard_index,
                shard_count=partitioner.shard_count,
            ),
            labels=chosen.labels,
            too_long="skip",
        )

    def _transcriber(self, chosen: EvaluationSet, params: Params) -> ShortFormTranscriber:
        return ShortFormTranscriber(
            WhisperGenerator(
                self._models.student.config,
                merge(params, self._models.frozen),
                self._tokenizer,
                self._settings,
                options=self._config.evaluation.evaluation_options(chosen.language, chosen.task),
                compute=self._config.student_options,
                partitioner=self._partitioner,
            )
        )

    def _run_batches(
        self,
        pipeline: EvaluationPipeline,
        params: Params,
        transcriber: ShortFormTranscriber,
        sums: list[TokenLossSums],
    ) -> Iterator[tuple[Batch, EncodedWindows]]:
        """Yield each batch with its windows for the transcriber, and add its losses to those of ``sums``."""
        models = self._models
        encoder = merge(params, models.frozen)["encoder"]
        for batch in pipeline:
            if must_stop():
                raise interrupted("the evaluation is left and will be done again; the same command goes on")
            sent = self._partitioner.put_batch(batch)
            encoder_out = self._fns.encode(encoder, Batch(samples_BW=sent.samples_BW))
            if self._config.freeze.freeze_encoder and "encoder" not in models.teacher_params:
                sent = dataclasses.replace(sent, samples_BW=None, encoder_out_BSD=encoder_out)
            added = self._fns.evaluate(params, models.frozen, models.teacher_params, sent)
            sums[:] = [jax.tree.map(lambda a, b: a + b, *sums, added) if sums else added]
            yield (
                batch,
                windows_to_decode(
                    transcriber.generator, {"encoder_out_BSD": encoder_out}, rows=len(batch.valid_B)
                ),
            )


def _per_token(sums: TokenLossSums) -> dict[str, float]:
    tokens = max(float(sums.tokens), 1.0)
    losses = {"loss": sums.total} | sums.losses | {"accuracy": sums.correct}
    return {name: float(value) / tokens for name, value in losses.items()}
