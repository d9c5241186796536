"""Filter the rows of a training set. Evaluation sets are never filtered."""

import logging
from collections.abc import Callable

import numpy as np

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import LABEL_TOO_LONG, MALFORMED, NO_LABEL, TOO_LONG, TOO_SHORT
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.config import FilterConfig
from flax_distil.data.preprocessing.labels import BAD_TIMESTAMPS, LabelBuilder, spoken_text, timestamp_problem
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.metrics.word_errors import sample_wer

log = logging.getLogger(__name__)

EMPTY_REFERENCE = "with an empty reference"
UPPER_CASE = "in upper case only"
LOW_LOGPROB = "below the average log-probability threshold"
NO_SPEECH = "above the no-speech threshold"
COMPRESSES = "above the compression-ratio threshold"
HIGH_WER = "above the WER threshold"

REASONS = (
    MALFORMED, TOO_SHORT, TOO_LONG, NO_LABEL, EMPTY_REFERENCE, BAD_TIMESTAMPS, UPPER_CASE, LABEL_TOO_LONG,
    LOW_LOGPROB, NO_SPEECH, COMPRESSES, HIGH_WER,
)  # fmt: skip
"""All reasons for dropping a row."""

VERSION = 1
"""Increase it when the same settings give other results: results on disk are then computed again."""

WER_COLUMN = "wer"
"""Word error rate of the label in percent, as pseudo-labelling writes it."""

WER_PROBES = 200
"""Number of rows whose error rate is computed to check the error rates in a column of the data set."""

AVG_LOGPROB_COLUMN = "avg_logprob"
NO_SPEECH_PROB_COLUMN = "no_speech_prob"
COMPRESSION_RATIO_COLUMN = "compression_ratio"
"""Columns that pseudo-labelling writes beside the label."""


class RowFilter:
    """Decides by the columns of rows which of them to keep, without decoding audio; any thread may use it.

    Durations that no column has are checked later, when the audio is decoded.

    Args:
        data: The training set, or a block of a streamed one, with the same columns.
        config: Configuration of the filters.
        normalize: Text normalizer of the data set's language, for the WER.
        labels: Builder whose limit of tokens the labels must meet; None sets no limit.

    Raises:
        InputError: If the data set lacks a column that a filter needs.
    """

    def __init__(
        self,
        data: SpeechDataset,
        config: FilterConfig,
        *,
        normalize: Callable[[str], str],
        labels: LabelBuilder | None = None,
    ):
        _check_columns(data, config)
        self._config = config
        self._normalize = normalize
        self._labels = labels
        self._has_pseudo_labels = data.label_column is not None
        self._has_ratio = data.has_column(COMPRESSION_RATIO_COLUMN)
        self._trusts_wer = self._wer_agrees(data)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads, besides texts and durations."""
        return AVG_LOGPROB_COLUMN, NO_SPEECH_PROB_COLUMN, COMPRESSION_RATIO_COLUMN, WER_COLUMN

    @property
    def measures(self) -> bool:
        """Whether it counts the tokens of labels, because it limits them."""
        return self._labels is not None

    def fingerprint(self) -> str:
        """Return a text that changes whenever the settings may change the verdict for a row."""
        labels = "" if self._labels is None else self._labels.fingerprint()
        flags = (self._has_pseudo_labels, self._has_ratio, self._trusts_wer)
        return f"{VERSION} {self._config!r} {self._normalize!r} {flags} {labels}"

    def drop_reason(self, row: Example) -> str | None:
        """Return the first reason for dropping a row, one of :data:`REASONS`; None keeps it."""
        return self.drop_reason_and_length(row)[0]

    def drop_reason_and_length(self, row: Example) -> tuple[str | None, int]:
        """Return the reason for dropping a row, and the number of tokens of its label if it is limited."""
        if row.problem is not None:
            return MALFORMED, 0
        reason = self._duration_reason(row.duration_seconds) or self._label_reason(row)
        if reason is not None:
            return reason, 0
        length = 0 if self._labels is None else self._labels.length(row.label or "")
        if self._labels is not None and length > self._labels.max_label_length:
            return LABEL_TOO_LONG, 0
        return self._teacher_reason(row) or self._wer_reason(row), length  # the WER costs most

    def _wer(self, row: Example) -> float | None:
        return sample_wer(row.reference or "", spoken_text(row.label or ""), self._normalize)

    def _wer_agrees(self, data: SpeechDataset) -> bool:
        """Return whether the column of error rates agrees with the texts in a sample of the rows."""
        if self._config.wer_threshold is None or not data.has_column(WER_COLUMN) or not len(data):
            return False
        if not _is_number(data, WER_COLUMN):
            return False
        texts = data.without_audio()
        for index in np.unique(np.linspace(0, len(data) - 1, WER_PROBES).astype(int)):
            row = texts.row(int(index))
            told, found = row.values[WER_COLUMN], self._wer(row)
            if (told is None) != (found is None) or abs((told or 0.0) - (found or 0.0)) > 1e-6:
                log.info(
                    "%s: the column %r is not used: %s has %s there, and %s by the texts",
                    data.name, WER_COLUMN, row.sample_id, told, found,
                )  # fmt: skip
                return False
        return True

    def _duration_reason(self, seconds: float | None) -> str | None:
        if seconds is None:
            return None
        if seconds <= self._config.durations.min_duration_in_seconds:
            return TOO_SHORT
        return TOO_LONG if seconds >= self._config.durations.longest else None

    def _label_reason(self, row: Example) -> str | None:
        if row.label is None:
            return NO_LABEL
        if timestamp_problem(row.label, row.duration_seconds) is not None:
            return BAD_TIMESTAMPS
        # An empty pseudo-label means that there is no speech; an empty reference may only be missing.
        if not self._has_pseudo_labels and not row.label.strip():
            return EMPTY_REFERENCE
        if self._config.drop_upper_case and spoken_text(row.label).isupper():
            return UPPER_CASE
        return None

    def _teacher_reason(self, row: Example) -> str | None:
        """Apply the filters that need no reference. A row without a value is dropped."""
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

    def _wer_reason(self, row: Example) -> str | None:
        if self._config.wer_threshold is None:
            return None
        wer = row.values.get(WER_COLUMN) if self._trusts_wer else self._wer(row)
        if wer is None:
            return EMPTY_REFERENCE
        return None if wer < self._config.wer_threshold else HIGH_WER


def _is_number(data: SpeechDataset, column: str) -> bool:
    import pyarrow.types as types

    kind = data.table.data.schema.field(column).type
    return bool(types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind))


def _check_columns(data: SpeechDataset, config: FilterConfig) -> None:
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
        (COMPRESSION_RATIO_COLUMN, config.max_compression_ratio, "max_compression_ratio"),
    ):
        if threshold is not None and data.has_column(column) and not _is_number(data, column):
            raise InputError(
                f"{flag} {threshold:g} compares the column {column!r}, which is of type "
                f"{data.table.data.schema.field(column).type} in data set {data.name!r}: expected numbers"
            )
        if column == COMPRESSION_RATIO_COLUMN:
            continue  # computed where it is missing
        if threshold is not None and not data.has_column(column):
            raise InputError(
                f"{flag} {threshold:g} needs the column {column!r}, which data set {data.name!r} does not "
                f"have (it has {existing}): pseudo-label it again, or leave the filter out"
            )
