"""The data of a run: sources checked and filtered, batches on their way to the devices."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.arrays import Array
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.training.batches import Batch
from flax_distil.data.training.encoder_cache import EncoderStateCache
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_data import TrainingData, load_training_data, training_pipeline
from flax_distil.data.window_states import WindowStates
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.evaluation.data import EvaluationSet, evaluation_sets
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import MICRO_BATCHES, Partitioner
from flax_distil.storage.output_dir import check_local
from flax_distil.text.tokenizer import WhisperTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillData:
    """The data of a distillation; evaluation sets are not filtered.

    Attributes:
        train: Training data after their filters.
        evaluation: Evaluation sets, one per name in ``eval_dataset_name``.
    """

    train: TrainingData
    evaluation: list[EvaluationSet]


def load_data(config: DistillConfig, tokenizer: WhisperTokenizer, student: WhisperConfig) -> DistillData:
    """Open the data sets, check their columns and filter the training data.

    Args:
        config: Configuration of the run.
        tokenizer: Tokenizer of the student.
        student: Shape of the student, which says how much it hears at once.

    Raises:
        InputError: If a data set, split or column is unknown, or no training sample is left.
    """
    return DistillData(
        train=load_training_data(config.data, tokenizer, window_seconds=student.window_seconds),
        evaluation=evaluation_sets(config, tokenizer),
    )


def check_cacheable(config: DistillConfig, data: TrainingData, partitioner: Partitioner) -> None:
    """Check that encoder outputs can be cached, if that is asked for.

    Raises:
        InputError: If the training data are streamed, joined, augmented or of several data sets, or several
            processes read them.
    """
    if not config.cache_encoder_states:
        return
    _cache_folder(config)
    if partitioner.shard_count > 1:
        raise InputError("cache_encoder_states is set, but only one process can write the encoder states")
    obstacles = {
        "streaming": config.data.reading.streaming,
        "concatenate_audio": config.data.speakers.concatenate_audio,
        "several training data sets": len(data.sources) > 1,
        "augmentation of the audio": config.data.augmentation != AugmentationConfig(),
        "non_speech_padding_probability": config.data.non_speech.non_speech_padding_probability > 0,
    }
    if found := [name for name, there in obstacles.items() if there]:
        raise InputError(
            f"cache_encoder_states does not go with {found[0]}: states are kept by row, of clean audio; "
            "leave one of them out"
        )


def open_cache(
    config: DistillConfig, train: SpeechDataset, shape: tuple[int, int], fingerprint: str
) -> EncoderStateCache:
    """Open the cache of encoder outputs of the training set.

    Args:
        config: Configuration of the run, with the folder of the cache.
        train: The training set after its filters.
        shape: Positions S and width D of the encoder outputs.
        fingerprint: Fingerprint of the encoder's weights and of how it computes.
    """
    folder, (positions, width) = _cache_folder(config), shape
    rows, of_rows = len(train), f"{fingerprint}-{train.fingerprint()}"
    if config.data.non_speech.replaces_samples:  # clips follow the rows of the training set
        rows, of_rows = rows + config.data.non_speech.non_speech_clips, f"{of_rows}-{config.data.seed}"
    return EncoderStateCache(
        folder,
        fingerprint=of_rows,
        rows=rows,
        positions=positions,
        width=width,
        windows=WindowStates(folder, fingerprint=fingerprint, positions=positions, width=width),
    )


def _cache_folder(config: DistillConfig) -> Path:
    given, output = config.encoder_cache_dir, config.output.path
    if given:
        check_local("encoder_cache_dir", given)
        return user_path(given)
    if not isinstance(output, Path):
        raise InputError(
            f"encoder states are kept on this machine only, and output_dir is {str(output)!r}: name a local "
            "folder as encoder_cache_dir, or leave cache_encoder_states out"
        )
    return output / "encoder_cache"


def make_pipeline(
    config: DistillConfig,
    data: DistillData,
    student: WhisperConfig,
    partitioner: Partitioner,
    cache: EncoderStateCache | None,
) -> TrainingPipeline:
    """Return the stream of this process's training batches, all micro-batches together."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return training_pipeline(
        config.data,
        data.train,
        PipelineConfig(
            batch_size=rows * partitioner.local_batch_shards,
            num_threads=config.data.reading.dataloader_num_workers,
            window_seconds=student.window_seconds,
            shard_index=partitioner.shard_index,
            shard_count=partitioner.shard_count,
        ),
        seed=config.data.seed,
        needs_audio=None if cache is None else cache.needs_audio,
    )


def prepare_batch(
    batch: Batch,
    *,
    partitioner: Partitioner,
    micro_batches: int,
    cache: EncoderStateCache | None,
    encode: Callable[[Batch], Array],
) -> Batch:
    """Return the arrays of a training step, [K, B, …], on their way to the devices.

    With a cache, the rows whose encoder outputs are missing are encoded once and kept, and read back from
    then on; a step then never sees audio.

    Args:
        batch: This process's rows, on the host.
        partitioner: The devices.
        micro_batches: Number K of micro-batches.
        cache: Cache of encoder outputs, or None.
        encode: Runs the frozen encoder on samples; only with a cache.
    """
    if cache is not None:
        rows, valid = batch.index_B, batch.valid_B
        missing = batch.has_audio_B & ~np.array([cache.has([row]) for row in rows])
        if missing.any():
            missing = cache.copy_known(rows, batch.samples_BW, missing)
        if missing.any():
            encoded = []
            for part in np.split(batch.samples_BW, micro_batches):
                sent = partitioner.put_batch(Batch(samples_BW=part))
                encoded.append(partitioner.local_rows(encode(sent)))
            cache.write(rows[missing], np.concatenate(encoded)[missing])
        states_BSD = cache.read(rows[valid])
        if not valid.all():
            padded_BSD = np.zeros((len(rows), *states_BSD.shape[1:]), states_BSD.dtype)
            padded_BSD[valid] = states_BSD
            states_BSD = padded_BSD
        batch = dataclasses.replace(batch, samples_BW=None, encoder_out_BSD=states_BSD)
    sent_batch: Batch = partitioner.put_batch(batch.in_micro_batches(micro_batches), MICRO_BATCHES)
    return sent_batch
