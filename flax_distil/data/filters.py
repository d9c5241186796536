"""Which rows of a training set are worth learning from. Never applied to evaluation sets."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flax_distil.core import InputError, Int
from flax_distil.data.drop_report import DropReport
from flax_distil.data.labels import BAD_TIMESTAMPS, LabelBuilder, spoken_text, timestamp_problem
from flax_distil.data.rows import SpeechRow
from flax_distil.data.samples import LABEL_TOO_LONG, MALFORMED, NO_LABEL, TOO_LONG, TOO_SHORT, SampleError
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.speech_data import SpeechData
from flax_distil.metrics import compression_ratio, sample_wer

EMPTY_REFERENCE = "with an empty reference"
UPPER_CASE = "in upper case only"
LOW_LOGPROB = "below the average log-probability threshold"
NO_SPEECH = "above the no-speech threshold"
COMPRESSES = "above the compression-ratio threshold"
HIGH_WER = "above the WER threshold"

AVG_LOGPROB_COLUMN = "avg_logprob"
NO_SPEECH_PROB_COLUMN = "no_speech_prob"
COMPRESSION_RATIO_COLUMN = "compression_ratio"
"""Columns that pseudo-labelling writes beside the label."""


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which rows stay in the training set.

    Args:
        wer_threshold: Keep a row only if its pseudo-label's word error rate against the
            reference is below this many percent; 10 is the paper's. None does not compare.
        min_duration_in_seconds: Recordings must be longer than this.
        max_duration_in_seconds: Recordings must be shorter than this.
        min_avg_logprob: Keep a row only if the teacher's average log-probability is at least this.
        max_compression_ratio: Keep a row only if its label's compression ratio is at most this
            (2.4 tells loops); computed from the label where the data set has no such column.
        max_no_speech_prob: Keep a row only if the teacher's probability of no speech is at most this.
        drop_upper_case: Drop rows whose label is in upper case only, which a student would learn to write.
            It is the label that is judged, not the reference beside it: the WER ignores case. Scripts
            without case have none to drop.
    """

    wer_threshold: float | None = None
    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float = 30.0
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None
    drop_upper_case: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_duration_in_seconds < self.max_duration_in_seconds <= 30:
            raise InputError(
                "expected 0 <= min_duration_in_seconds < max_duration_in_seconds <= 30, got "
                f"{self.min_duration_in_seconds:g} and {self.max_duration_in_seconds:g}"
            )
        if self.wer_threshold is not None and not self.wer_threshold > 0:
            raise InputError(
                f"wer_threshold must be a positive percentage, got {self.wer_threshold:g}: "
                "leave it out to keep all"
            )
        if self.max_no_speech_prob is not None and not 0 <= self.max_no_speech_prob <= 1:
            raise InputError(
                f"max_no_speech_prob must be a probability between 0 and 1, got {self.max_no_speech_prob:g}"
            )
        if self.min_avg_logprob is not None and not self.min_avg_logprob <= 0:
            raise InputError(
                f"min_avg_logprob must be the logarithm of a probability (at most 0), "
                f"got {self.min_avg_logprob:g}"
            )


@dataclass(frozen=True, kw_only=True)
class FilterResult:
    """What a filter kept.

    Attributes:
        kept: int64, row numbers in order.
        total: Number of rows before.
        dropped: Reason to number of rows; each row counts for the first reason it met.
    """

    kept: Int[np.ndarray, " kept"]
    total: int
    dropped: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """Return one line for the log, such as ``kept 90 of 100 samples (dropped 10 too long)``."""
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return f"kept {len(self.kept)} of {self.total} samples" + (f" (dropped {dropped})" if dropped else "")


class RowFilter:
    """Judges rows by their columns; no audio is decoded. Any thread may use it.

    Durations that no column tells are checked later, when the audio is decoded.

    Args:
        data: The training set, or a piece of a streamed one: tells which columns there are.
        config: What to keep.
        normalise: Text normaliser of the data set's language, for the WER.
        labels: Bounds the tokens of a label; None bounds nothing.

    Raises:
        InputError: if the data set lacks a column that a filter needs.
    """

    def __init__(
        self,
        data: SpeechData,
        config: FilterConfig,
        *,
        normalise: Callable[[str], str],
        labels: LabelBuilder | None = None,
    ):
        _check_columns(data, config)
        self._config = config
        self._normalise = normalise
        self._labels = labels
        self._has_pseudo_labels = data.label_column is not None
        self._has_ratio = data.has_column(COMPRESSION_RATIO_COLUMN)

    def judge(self, row: SpeechRow) -> str | None:
        """Return the first reason for dropping a row, one of a few phrases; None keeps it."""
        if row.problem is not None:
            return MALFORMED
        return (
            self._judge_duration(row.duration_seconds)
            or self._judge_label(row)
            or self._judge_teacher(row)
            or self._judge_wer(row)  # last: it costs most
        )

    def _judge_duration(self, seconds: float | None) -> str | None:
        if seconds is None:
            return None
        if seconds <= self._config.min_duration_in_seconds:
            return TOO_SHORT
        return TOO_LONG if seconds >= self._config.max_duration_in_seconds else None

    def _judge_label(self, row: SpeechRow) -> str | None:
        if row.label is None:
            return NO_LABEL
        if timestamp_problem(row.label, row.duration_seconds) is not None:
            return BAD_TIMESTAMPS
        # A teacher writes nothing where it hears nothing; a person may just have written nothing.
        if not self._has_pseudo_labels and not row.label.strip():
            return EMPTY_REFERENCE
        if self._config.drop_upper_case and spoken_text(row.label).isupper():
            return UPPER_CASE
        labels = self._labels
        too_long = labels is not None and labels.length(row.label) > labels.max_label_length
        return LABEL_TOO_LONG if too_long else None

    def _judge_teacher(self, row: SpeechRow) -> str | None:
        """Apply the filters that need no reference. A missing value cannot vouch for its row: it goes."""
        config, values = self._config, row.values
        if config.min_avg_logprob is not None:
            logprob = values.get(AVG_LOGPROB_COLUMN)
            if logprob is None or not logprob >= config.min_avg_logprob:
                return LOW_LOGPROB
        if config.max_no_speech_prob is not None:
            no_speech = values.get(NO_SPEECH_PROB_COLUMN)
            if no_speech is None or not no_speech <= config.max_no_speech_prob:
                return NO_SPEECH
        if config.max_compression_ratio is not None:
            ratio = (
                values.get(COMPRESSION_RATIO_COLUMN)
                if self._has_ratio
                else compression_ratio(spoken_text(row.label or ""))
            )
            if ratio is None or not ratio <= config.max_compression_ratio:
                return COMPRESSES
        return None

    def _judge_wer(self, row: SpeechRow) -> str | None:
        if self._config.wer_threshold is None:
            return None
        wer = sample_wer(row.reference or "", spoken_text(row.label or ""), self._normalise)
        if wer is None:
            return EMPTY_REFERENCE
        return None if wer < self._config.wer_threshold else HIGH_WER


def filter_rows(
    data: SpeechData,
    row_filter: RowFilter,
    *,
    report: DropReport | None = None,
    skipped: SkippedSamples | None = None,
) -> FilterResult:
    """Judge every row of a table.

    Args:
        data: The training set.
        row_filter: Made for it.
        report: Counts the rows too.
        skipped: Where rows with impossible values are listed.

    Returns:
        The rows that stay, and how many went for which reason.

    Raises:
        InputError: if no row stays.
    """
    kept, dropped = [], Counter[str]()
    for row in data.rows_without_audio():
        reason = row_filter.judge(row)
        if report is not None:
            report.add(data.name, reason, row.duration_seconds)
        if row.problem is not None and skipped is not None:
            skipped.reject(row, SampleError(MALFORMED, row.problem), data_set=data.name)
        if reason is None:
            kept.append(row.index)
        else:
            dropped[reason] += 1
    result = FilterResult(kept=np.array(kept, np.int64), total=len(data), dropped=dict(dropped.most_common()))
    if not kept:
        raise InputError(
            f"no sample of data set {data.name!r} is left: {result.summary()}; loosen the filters"
        )
    return result


def _check_columns(data: SpeechData, config: FilterConfig) -> None:
    existing = ", ".join(data.table.column_names)
    if config.wer_threshold is not None and (data.label_column is None or data.text_column is None):
        missing = "pseudo-labels" if data.label_column is None else "reference texts"
        raise InputError(
            f"wer_threshold {config.wer_threshold:g} compares pseudo-labels with references, but data set "
            f"{data.name!r} has no column of {missing}: name one of {existing}, or use the filters that "
            "need no reference"
        )
    for column, threshold, flag in (
        (AVG_LOGPROB_COLUMN, config.min_avg_logprob, "min_avg_logprob"),
        (NO_SPEECH_PROB_COLUMN, config.max_no_speech_prob, "max_no_speech_prob"),
    ):
        if threshold is not None and not data.has_column(column):
            raise InputError(
                f"{flag} {threshold:g} needs the column {column!r}, which data set {data.name!r} has not "
                f"(it has {existing}): pseudo-label it again, or leave the filter out"
            )
