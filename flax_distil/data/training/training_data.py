"""Open training data: load, check, filter and pack each data set."""

import dataclasses
import logging
import math

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DurationLimits
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filter_tables import filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.preprocessing.packing import PackedData, pack_rows
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.sources.dataset_spec import DatasetSpec, split_values
from flax_distil.data.sources.load_datasets import load_datasets, load_table
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingData, TrainingSource
from flax_distil.text.normalizers import Normalizer, get_model_normalizer
from flax_distil.text.tokenizer import WhisperTokenizer

log = logging.getLogger(__name__)


def load_training_data(
    config: TrainingDataConfig, tokenizer: WhisperTokenizer, *, window_seconds: float = float(CHUNK_SECONDS)
) -> TrainingData:
    """Open the data sets, check their columns, and filter and join the rows of tables.

    Args:
        config: Configuration of the training data.
        tokenizer: Tokenizer of the student.
        window_seconds: Length of the student's window. Longer recordings are dropped, and joined recordings
            fill it.

    Raises:
        InputError: If a data set, split, column or language is unknown, the number of values of a setting is
            not the number of data sets, or no sample is left.
    """
    if window_seconds < config.filters.durations.longest:
        log.info("the student hears %g s at a time: longer training recordings are dropped", window_seconds)
    spec = config.train_dataset_name
    languages = split_values(config.labels.language, "languages", spec)
    tasks = split_values(config.labels.task, "tasks", spec)
    weights, kl_weights = _weights(config), _kl_weights(config)
    builders = [
        LabelBuilder(tokenizer, config.labels_of(language, task))
        for language, task in zip(languages, tasks, strict=True)
    ]
    opened = load_datasets(_spec(config))
    dropped, skipped = DropReport(), SkippedSamples()
    sources: list[TrainingSource] = []
    for data, language, task, labels, weight in zip(opened, languages, tasks, builders, weights, strict=True):
        normalize = get_model_normalizer(
            language, task, is_multilingual=tokenizer.special.is_multilingual, name=config.reading.normalizer
        )
        opener = _Opener(config.within(window_seconds), labels, normalize, weight, window_seconds)
        if isinstance(data, IterableSpeechDataset):
            sources.append(opener.stream_source(data))
        else:
            sources.append(opener.table_source(data, dropped, skipped))
    if table := dropped.table():
        log.info("training data\n%s", table)
    return TrainingData(
        sources=sources, dropped=dropped, skipped=skipped, noise=_noise(config), kl_weights=kl_weights
    )


def training_pipeline(
    config: TrainingDataConfig,
    data: TrainingData,
    pipeline: PipelineConfig,
    *,
    seed: int,
    needs_audio: NeedsAudio | None = None,
) -> TrainingPipeline:
    """Return the pipeline of the training batches of one process.

    Args:
        config: Configuration with the mixture of data sets and the augmentation.
        data: The data sets.
        pipeline: Batch size, threads and shard.
        seed: Seed of every random choice.
        needs_audio: Function that says which samples to decode; see :class:`TrainingPipeline`.
    """
    return TrainingPipeline(
        data,
        dataclasses.replace(
            pipeline, policy=config.reading.retries, shuffle_buffer_size=config.shuffle_buffer_size
        ),
        seed=seed,
        restart=config.stopping_strategy == "first_exhausted",
        limits=duration_limits(config.within(pipeline.window_seconds)),
        needs_audio=needs_audio,
        augmentation=config.augmentation,
        non_speech=config.non_speech,
    )


def duration_limits(config: TrainingDataConfig) -> DurationLimits:
    """Return the limits of the duration of training recordings."""
    return DurationLimits(
        min_seconds=config.filters.durations.min_duration_in_seconds,
        max_seconds=config.filters.durations.longest,
        allow_max=False,
    )


def _spec(config: TrainingDataConfig) -> DatasetSpec:
    return dataclasses.replace(
        config.reading.dataset_spec(config.train_dataset_name),
        config_name=config.train_dataset_config_name,
        split=config.train_split_name,
        label_column=config.label_column_name or None,
        speaker_column=config.speakers.speaker_column_name,
        max_samples=config.max_train_samples,
    )


def _weights(config: TrainingDataConfig) -> list[float | None]:
    if config.train_dataset_samples is None:
        return [None for _ in split_values(None, "", config.train_dataset_name)]
    weights = _numbers(config.train_dataset_samples, "numbers of samples", config)
    if not all(0 < weight < math.inf for weight in weights):
        raise InputError(
            f"train_dataset_samples {config.train_dataset_samples!r} is not made of positive numbers: "
            "give one per data set, joined by +"
        )
    return [*weights]


def _kl_weights(config: TrainingDataConfig) -> list[float] | None:
    if config.train_dataset_kl_weights is None:
        return None
    weights = _numbers(config.train_dataset_kl_weights, "KL weights", config)
    if not all(0 <= weight < math.inf for weight in weights):
        raise InputError(
            f"train_dataset_kl_weights {config.train_dataset_kl_weights!r} is not made of numbers from 0 on: "
            "give one per data set, joined by +"
        )
    return weights


def _numbers(joined: str, what: str, config: TrainingDataConfig) -> list[float]:
    """Return one number per data set; one of them is NaN if any is not a number."""
    values = split_values(joined, what, config.train_dataset_name)
    try:
        return [float(value or "") for value in values]
    except ValueError:
        return [math.nan]


@dataclasses.dataclass(frozen=True)
class _Opener:
    """Makes a training source from an opened data set."""

    config: TrainingDataConfig
    labels: LabelBuilder
    normalize: Normalizer
    weight: float | None
    window_seconds: float

    @property
    def joined_seconds(self) -> float:
        """Longest sample that is made by joining."""
        return min(self.window_seconds, self.config.speakers.max_concatenated_seconds)

    def table_source(self, data: SpeechDataset, dropped: DropReport, skipped: SkippedSamples) -> TableSource:
        if self.config.speakers.sort_by_speaker:
            data = group_by_speaker(data)
        row_filter = RowFilter(data, self.config.filters, normalize=self.normalize, labels=self.labels)
        kept = filter_rows(
            data,
            row_filter,
            report=dropped,
            skipped=skipped,
            workers=self.config.preprocessing_num_workers,
            cache_dir=self.config.reading.dataset_cache_dir,
        )
        data = data.select(kept.kept.tolist())
        packs: PackedData | None = None
        if self.config.speakers.concatenate_audio:
            packs = pack_rows(data, labels=self.labels, skipped=skipped, window_seconds=self.joined_seconds)
            log.info("%s: %s", data.name, packs.report.summary())
        return TableSource(
            data=data,
            labels=self.labels,
            packs=packs,
            weight=self.weight,
            longest_label=kept.longest_label,
        )

    def stream_source(self, stream: IterableSpeechDataset) -> StreamSource:
        return StreamSource(
            stream=stream,
            labels=self.labels,
            filters=self.config.filters,
            normalize=self.normalize,
            concatenate=self.config.speakers.concatenate_audio,
            window_seconds=self.joined_seconds,
            weight=self.weight,
        )


def group_by_speaker(data: SpeechDataset) -> SpeechDataset:
    """Return the rows grouped by speaker.

    Raises:
        InputError: If no column identifies speakers.
    """
    if data.speaker_column is None:
        raise InputError(
            f"sort_by_speaker is set, but data set {data.name!r} has no column of speakers: "
            "name speaker_column_name, or leave sort_by_speaker out"
        )
    return data.group_by_speaker()


def _noise(config: TrainingDataConfig) -> SpeechDataset | None:
    spec = config.noise.spec(config.reading)
    return None if spec is None else load_table(spec)
