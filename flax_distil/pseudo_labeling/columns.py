"""The columns of a pseudo-labelled data set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flax_distil.data.dataset import DURATION_COLUMN, ID_COLUMN, PSEUDO_LABEL_COLUMN, SpeechDataset
from flax_distil.data.preprocessing.segmentation import OFFSET_COLUMN, SOURCE_ID_COLUMN
from flax_distil.data.shards.shard_writer import shard_features, shard_table
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.pseudo_labeling.shard_reader import Recording
from flax_distil.text.normalizers import Normalizer
from flax_distil.transcription.results import Transcript

if TYPE_CHECKING:
    import datasets
    import pyarrow


def label_features(data: SpeechDataset) -> "datasets.Features":
    """Return the columns of the new data set: those of the source, and the labels with their scores.

    Args:
        data: Rows of the source.
    """
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    added = {
        ID_COLUMN: text,
        SOURCE_ID_COLUMN: text,
        OFFSET_COLUMN: number,
        DURATION_COLUMN: number,
        PSEUDO_LABEL_COLUMN: text,
        "avg_logprob": number,
        "no_speech_prob": number,
        "compression_ratio": number,
    }
    if data.text_column is not None:
        added |= {data.text_column: text, "wer": number}
    return shard_features(data, added)


def label_table(
    data: SpeechDataset,
    recordings: Sequence[Recording],
    transcripts: Sequence[Transcript],
    *,
    features: "datasets.Features",
    normalize: Normalizer,
) -> "pyarrow.Table":
    """Return the rows of a finished shard.

    Args:
        data: Rows of the source in the shard.
        recordings: Recordings made of the rows, in the order of the corpus.
        transcripts: Transcript of each recording.
        features: Columns of :func:`label_features`.
        normalize: Normalizer for the comparison of transcripts with references.
    """
    return shard_table(
        data,
        [recording.row.index for recording in recordings],
        audio=[recording.audio for recording in recordings],
        columns=_columns(recordings, transcripts, data.text_column, normalize),
        features=features,
    )


def _columns(
    recordings: Sequence[Recording],
    transcripts: Sequence[Transcript],
    text_column: str | None,
    normalize: Normalizer,
) -> dict[str, list[Any]]:
    """Return the values of the columns that are not those of the source."""
    columns: dict[str, list[Any]] = {
        ID_COLUMN: [recording.row.sample_id for recording in recordings],
        SOURCE_ID_COLUMN: [recording.row.values.get(SOURCE_ID_COLUMN) for recording in recordings],
        OFFSET_COLUMN: [recording.row.values.get(OFFSET_COLUMN) for recording in recordings],
        DURATION_COLUMN: [recording.seconds for recording in recordings],
        # With timestamps where they were asked for: distillation may train on them.
        PSEUDO_LABEL_COLUMN: [t.text_with_timestamps or t.text for t in transcripts],
        "avg_logprob": [t.avg_logprob for t in transcripts],
        "no_speech_prob": [t.no_speech_prob for t in transcripts],
        "compression_ratio": [compression_ratio(t.text) for t in transcripts],
    }
    if text_column is not None:
        columns[text_column] = [recording.reference for recording in recordings]
        columns["wer"] = [
            sample_wer(recording.reference or "", transcript.text, normalize)
            for recording, transcript in zip(recordings, transcripts, strict=True)
        ]
    return columns
