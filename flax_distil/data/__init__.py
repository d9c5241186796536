"""From data sets of any kind to batches of a few shapes: sources, filters, labels, pipelines."""

from flax_distil.data.batches import LABEL_BUCKETS, Batch, collate, stack_audio, stack_labels
from flax_distil.data.cutting import cut_rows
from flax_distil.data.drop_report import DropReport
from flax_distil.data.encoder_cache import EncoderStateCache
from flax_distil.data.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.filter_tables import FilterResult, filter_rows
from flax_distil.data.filters import FilterConfig, RowFilter
from flax_distil.data.fingerprints import weights_fingerprint
from flax_distil.data.labels import (
    LabelBuilder,
    LabelConfig,
    LabelPart,
    LabelTokens,
    sample_random,
    spoken_text,
)
from flax_distil.data.packed_audio import DecodedPack, JoinedAudio, decode_pack, join_audio
from flax_distil.data.packing import PackedData, PackedRows, Packer, PackingReport, measured, pack, pack_rows
from flax_distil.data.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.reading.joining import join_sources
from flax_distil.data.reading.remote import read_bytes
from flax_distil.data.reading.retries import DEFAULT_POLICY, RetryPolicy, SourceError, SourceMissingError
from flax_distil.data.reading.sources import (
    SourceSpec,
    load_source,
    load_sources,
    parse_sources,
    split_values,
    stream_sources,
)
from flax_distil.data.rows import SpeechRow
from flax_distil.data.samples import DurationLimits, Sample, SampleError, SampleReader
from flax_distil.data.shards import Block, Cursor, Shard
from flax_distil.data.skipped import SkippedSample, SkippedSamples
from flax_distil.data.speech_data import (
    DURATION_COLUMN,
    ID_COLUMN,
    PSEUDO_LABEL_COLUMN,
    SpeechData,
)
from flax_distil.data.speech_stream import SpeechStream
from flax_distil.data.survey import Survey, joined_surveys, spread, survey_source
from flax_distil.data.tables import speech_data
from flax_distil.data.token_roles import SeenToken, seen_tokens
from flax_distil.data.training_pipeline import TrainingPipeline
from flax_distil.data.training_sources import StreamSource, TableSource, TrainingSource

__all__ = [
    "DEFAULT_POLICY",
    "DURATION_COLUMN",
    "ID_COLUMN",
    "LABEL_BUCKETS",
    "PSEUDO_LABEL_COLUMN",
    "Batch",
    "Block",
    "Cursor",
    "DecodedPack",
    "DropReport",
    "DurationLimits",
    "EncoderStateCache",
    "EvaluationPipeline",
    "FilterConfig",
    "FilterResult",
    "JoinedAudio",
    "LabelBuilder",
    "LabelConfig",
    "LabelPart",
    "LabelTokens",
    "NeedsAudio",
    "PackedData",
    "PackedRows",
    "Packer",
    "PackingReport",
    "PipelineConfig",
    "RetryPolicy",
    "RowFilter",
    "Sample",
    "SampleError",
    "SampleReader",
    "SeenToken",
    "Shard",
    "SkippedSample",
    "SkippedSamples",
    "SourceError",
    "SourceMissingError",
    "SourceSpec",
    "SpeechData",
    "SpeechRow",
    "SpeechStream",
    "StreamSource",
    "Survey",
    "TableSource",
    "TrainingPipeline",
    "TrainingSource",
    "collate",
    "cut_rows",
    "decode_pack",
    "filter_rows",
    "join_audio",
    "join_sources",
    "joined_surveys",
    "load_source",
    "load_sources",
    "measured",
    "pack",
    "pack_rows",
    "parse_sources",
    "read_bytes",
    "sample_random",
    "seen_tokens",
    "speech_data",
    "split_values",
    "spoken_text",
    "spread",
    "stack_audio",
    "stack_labels",
    "stream_sources",
    "survey_source",
    "weights_fingerprint",
]
