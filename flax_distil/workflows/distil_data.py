"""The data of a run: sources checked and filtered, and host batches made into what the steps take."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.core import Array, Params
from flax_distil.data import (
    EncoderStateCache,
    LabelBuilder,
    PipelineConfig,
    RowFilter,
    SkippedSamples,
    SpeechData,
    TrainingPipeline,
    filter_rows,
    load_source,
    load_sources,
)
from flax_distil.parallel import Runner
from flax_distil.text import WhisperTokenizer, normaliser
from flax_distil.workflows.distil_config import DistilConfig

log = logging.getLogger(__name__)

LABEL_ARRAYS = ("decoder_input_ids_BT", "labels_BT", "loss_mask_BT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilData:
    """Training set after its filters, evaluation sets as they are.

    Attributes:
        train: filtered rows.
        evaluation: one per name in ``eval_dataset_name``.
        labels: makes the labels of both.
        skipped: training rows that could not be used.
    """

    train: SpeechData
    evaluation: list[SpeechData]
    labels: LabelBuilder
    skipped: SkippedSamples = dataclasses.field(default_factory=SkippedSamples)


def load_data(config: DistilConfig, tokenizer: WhisperTokenizer) -> DistilData:
    """Open the data sets, check their columns and filter the training set.

    Raises:
        InputError: if a data set, split or column is unknown, or no training sample is left.
    """
    labels = LabelBuilder(tokenizer, config.labels)
    train = load_source(
        config.train_dataset_name,
        config_name=config.train_dataset_config_name,
        split=config.train_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        label_column=config.label_column_name or None,
        max_samples=config.max_train_samples,
        cache_dir=config.dataset_cache_dir,
    )
    evaluation = []
    if config.eval_dataset_name is not None:
        evaluation = load_sources(
            config.eval_dataset_name,
            config_name=config.eval_dataset_config_name,
            split=config.eval_split_name,
            audio_column=config.audio_column_name,
            text_column=config.text_column_name,
            max_samples=config.max_eval_samples,
            cache_dir=config.dataset_cache_dir,
        )
    spoken = config.language or (None if tokenizer.special.is_multilingual else "en")
    kept = filter_rows(train, RowFilter(train, config.filters, normalise=normaliser(spoken), labels=labels))
    log.info("training data: %s", kept.summary())
    return DistilData(train=train.select(kept.kept.tolist()), evaluation=evaluation, labels=labels)


def open_cache(
    config: DistilConfig, train: SpeechData, shape: tuple[int, int], fingerprint: str
) -> EncoderStateCache:
    """Open the cache of encoder states of the training set.

    Args:
        config: says where.
        train: filtered rows.
        shape: positions S and width D of the states.
        fingerprint: of the encoder's weights and how it computes.
    """
    given = config.encoder_cache_dir
    return EncoderStateCache(
        Path(given).expanduser() if given else config.output_path / "encoder_cache",
        fingerprint=f"{fingerprint}-{train.fingerprint()}",
        rows=len(train),
        positions=shape[0],
        width=shape[1],
    )


def training_pipeline(
    config: DistilConfig, data: DistilData, runner: Runner, cache: EncoderStateCache | None
) -> TrainingPipeline:
    """Return the stream of this process's training batches, all micro-batches together."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return TrainingPipeline(
        data.train,
        data.labels,
        PipelineConfig(
            batch_size=rows * runner.local_batch_shards,
            num_threads=config.dataloader_num_workers,
            shard_index=runner.shard_index,
            shard_count=runner.shard_count,
        ),
        seed=config.seed,
        min_duration_seconds=config.min_duration_in_seconds,
        max_duration_seconds=config.max_duration_in_seconds,
        needs_audio=None if cache is None else cache.needs_audio,
        skipped=data.skipped,
    )


class BatchFeeder:
    """Turns a host batch into the device batch of a training step.

    With a cache, the rows whose states are missing are encoded once, kept, and from then on
    read back; a step then never sees audio.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        micro_batches: int,
        encode: Callable[[Params, Mapping[str, Array]], dict[str, Array]],
        encoder: Params,
        cache: EncoderStateCache | None,
    ):
        """Describe how batches are fed.

        Args:
            runner: of the programs.
            micro_batches: K.
            encode: program of ``DistilPrograms``.
            encoder: parameters of the frozen encoder; ``{}`` without a cache.
            cache: of encoder states, or None.
        """
        self._runner = runner
        self._micro_batches = micro_batches
        self._encode = encode
        self._encoder = encoder
        self._cache = cache

    def feed(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the arrays of a step, [K, B, …], on their way to the devices."""
        arrays = {name: batch[name] for name in LABEL_ARRAYS}
        if self._cache is None:
            arrays["samples_BW"] = batch["samples_BW"]
        else:
            arrays["states_BSD"] = self._states(batch, self._cache)
        return self._runner.put_batch(self._in_micro_batches(arrays))

    def _in_micro_batches(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = self._micro_batches
        return {
            name.replace("_B", "_KB"): value.reshape(count, -1, *value.shape[1:])
            for name, value in arrays.items()
        }

    def _states(self, batch: Mapping[str, Any], cache: EncoderStateCache) -> np.ndarray:
        """Read the states of a batch, after encoding and keeping those of new rows."""
        rows = batch["index_B"]
        missing = batch["has_audio_B"] & ~np.array([cache.has([row]) for row in rows])
        if missing.any():
            encoded = []
            for part in np.split(batch["samples_BW"], self._micro_batches):
                sent = self._runner.put_batch({"samples_BW": part})
                encoded.append(self._runner.rows(self._encode(self._encoder, sent))["states_BSD"])
            cache.write(rows[missing], np.concatenate(encoded)[missing])
        return cache.read(rows)
