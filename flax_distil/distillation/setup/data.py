"""The data of a run: sources checked and filtered, and host batches made into what the steps take."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.arrays import Array, Params
from flax_distil.core.errors import InputError
from flax_distil.core.paths import user_path
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.training.encoder_cache import EncoderStateCache
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_data import TrainingData, load_training_data, training_pipeline
from flax_distil.distillation.config import DistilConfig
from flax_distil.distillation.evaluation.data import EvaluationSet, evaluation_sets
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.tokenizer import WhisperTokenizer

AUDIO_ARRAYS = ("samples_BW", "lengths_B", "seed_B")
LABEL_ARRAYS = ("decoder_input_ids_BT", "labels_BT", "loss_mask_BT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilData:
    """Training data after their filters, evaluation sets as they are.

    Attributes:
        train: training data.
        evaluation: one per name in ``eval_dataset_name``.
    """

    train: TrainingData
    evaluation: list[EvaluationSet]


def load_data(config: DistilConfig, tokenizer: WhisperTokenizer, student: WhisperConfig) -> DistilData:
    """Open the data sets, check their columns and filter the training data.

    Args:
        config: of the run.
        tokenizer: of the student.
        student: its shape, which says how much it hears at once.

    Raises:
        InputError: if a data set, split or column is unknown, or no training sample is left.
    """
    return DistilData(
        train=load_training_data(config, tokenizer, window_seconds=student.window_seconds),
        evaluation=evaluation_sets(config, tokenizer),
    )


def check_cacheable(config: DistilConfig, data: TrainingData, partitioner: Partitioner) -> None:
    """Check that encoder states can be kept, if they are to be.

    Raises:
        InputError: if the training data are streamed, joined, changed or of several data sets, or several
            processes read them.
    """
    if not config.cache_encoder_states:
        return
    if partitioner.shard_count > 1:
        raise InputError("cache_encoder_states is set, but only one process can write the encoder states")
    obstacles = {
        "streaming": config.streaming,
        "concatenate_audio": config.concatenate_audio,
        "several training data sets": len(data.sources) > 1,
        "augmentation of the audio": config.augmentation != AugmentationConfig(),
    }
    if found := [name for name, there in obstacles.items() if there]:
        raise InputError(
            f"cache_encoder_states does not go with {found[0]}: states are kept by row, of clean audio; "
            "leave one of them out"
        )


def open_cache(
    config: DistilConfig, train: SpeechDataset, shape: tuple[int, int], fingerprint: str
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
        user_path(given) if given else config.output_path / "encoder_cache",
        fingerprint=f"{fingerprint}-{train.fingerprint()}",
        rows=len(train),
        positions=shape[0],
        width=shape[1],
    )


def distil_pipeline(
    config: DistilConfig,
    data: DistilData,
    student: WhisperConfig,
    partitioner: Partitioner,
    cache: EncoderStateCache | None,
) -> TrainingPipeline:
    """Return the stream of this process's training batches, all micro-batches together."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return training_pipeline(
        config,
        data.train,
        PipelineConfig(
            batch_size=rows * partitioner.local_batch_shards,
            num_threads=config.dataloader_num_workers,
            window_seconds=student.window_seconds,
            shard_index=partitioner.shard_index,
            shard_count=partitioner.shard_count,
        ),
        seed=config.seed,
        needs_audio=None if cache is None else cache.needs_audio,
    )


class BatchFeeder:
    """Turns a host batch into the device batch of a training step.

    With a cache, the rows whose states are missing are encoded once, kept, and from then on
    read back; a step then never sees audio.
    """

    def __init__(
        self,
        partitioner: Partitioner,
        *,
        micro_batches: int,
        encode: Callable[[Params, Mapping[str, Array]], dict[str, Array]],
        encoder: Params,
        cache: EncoderStateCache | None,
    ):
        """Describe how batches are fed.

        Args:
            partitioner: of the programs.
            micro_batches: K.
            encode: program of ``TrainStepFns``.
            encoder: parameters of the frozen encoder; ``{}`` without a cache.
            cache: of encoder states, or None.
        """
        self._partitioner = partitioner
        self._micro_batches = micro_batches
        self._encode = encode
        self._encoder = encoder
        self._cache = cache

    def feed(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the arrays of a step, [K, B, …], on their way to the devices."""
        arrays = {name: batch[name] for name in LABEL_ARRAYS}
        if self._cache is None:
            arrays |= {name: batch[name] for name in AUDIO_ARRAYS if name in batch}
        else:
            arrays["encoder_out_BSD"] = self._states(batch, self._cache)
        return self._partitioner.put_batch(self._in_micro_batches(arrays))

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
                sent = self._partitioner.put_batch({"samples_BW": part})
                encoded.append(
                    self._partitioner.local_rows(self._encode(self._encoder, sent))["encoder_out_BSD"]
                )
            cache.write(rows[missing], np.concatenate(encoded)[missing])
        return cache.read(rows)
