"""The training data of a run: opened, checked, filtered, joined."""

import dataclasses
from collections.abc import Sequence

from flax_distil.data import (
    DropReport,
    FilterConfig,
    LabelBuilder,
    LabelConfig,
    RowFilter,
    SkippedSamples,
    TableSource,
    TrainingSource,
    filter_rows,
    load_sources,
    pack_rows,
)
from flax_distil.text import WhisperTokenizer, normaliser
from flax_distil.workflows.training_data_config import TrainingDataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training data sets, ready for a pipeline.

    Attributes:
        sources: One per data set.
        dropped: What the filters dropped of tables; streams are filtered as they come.
        skipped: Rows that cannot be used; pipelines add to it.
    """

    sources: Sequence[TrainingSource]
    dropped: DropReport
    skipped: SkippedSamples = dataclasses.field(default_factory=SkippedSamples)


def load_training_data(config: TrainingDataConfig, tokenizer: WhisperTokenizer) -> TrainingData:
    """Open the data sets, check their columns, filter and join the rows of tables.

    Raises:
        InputError: if a data set, split, column or language is unknown, or no sample is left.
    """
    labels = LabelBuilder(
        tokenizer,
        LabelConfig(
            language=config.language,
            task=config.task,
            timestamp_probability=config.timestamp_probability,
            condition_on_prev_probability=config.condition_on_prev_probability,
            round_timestamps=config.round_timestamps,
            max_label_length=config.max_label_length,
        ),
    )
    filters = FilterConfig(
        wer_threshold=config.wer_threshold,
        min_duration_in_seconds=config.min_duration_in_seconds,
        max_duration_in_seconds=config.max_duration_in_seconds,
        min_avg_logprob=config.min_avg_logprob,
        max_compression_ratio=config.max_compression_ratio,
        max_no_speech_prob=config.max_no_speech_prob,
    )
    spoken = config.language or (None if tokenizer.special.is_multilingual else "en")
    sources, dropped, skipped = [], DropReport(), SkippedSamples()
    for data in load_sources(
        config.train_dataset_name,
        config_name=config.train_dataset_config_name,
        split=config.train_split_name,
        audio_column=config.audio_column_name,
        text_column=config.text_column_name,
        label_column=config.label_column_name or None,
        speaker_column=config.speaker_column_name,
        max_samples=config.max_train_samples,
        cache_dir=config.dataset_cache_dir,
    ):
        row_filter = RowFilter(data, filters, normalise=normaliser(spoken), labels=labels)
        kept = data.select(filter_rows(data, row_filter, report=dropped).kept.tolist())
        packs = pack_rows(kept, labels=labels, skipped=skipped) if config.concatenate_audio else None
        sources.append(TableSource(data=kept, labels=labels, packs=packs))
    return TrainingData(sources=sources, dropped=dropped, skipped=skipped)
