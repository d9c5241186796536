"""Which rows of a training set are worth learning from. Never applied to evaluation sets."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flax_distil.core import InputError, Int
from flax_distil.data.labels import spoken_text
from flax_distil.data.samples import LABEL_TOO_LONG, NO_LABEL, TOO_LONG, TOO_SHORT
from flax_distil.data.speech_data import SpeechData
from flax_distil.metrics import compression_ratio, sample_wer

EMPTY_REFERENCE = "with an empty reference"
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
    """

    wer_threshold: float | None = None
    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float = 30.0
    min_avg_logprob: float | None = None
    max_compression_ratio: float | None = None
    max_no_speech_prob: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_duration_in_seconds < self.max_duration_in_seconds <= 30:
            raise InputError(
                "expected 0 <= min_duration_in_seconds < max_duration_in_seconds <= 30, got "
                f"{self.min_duration_in_seconds:g} and {self.max_duration_in_seconds:g}"
            )
        if self.wer_threshold is not None and self.wer_threshold <= 0:
            raise InputError(
                f"wer_threshold must be a positive percentage, got {self.wer_threshold:g}: "
                "leave it out to keep all"
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


def filter_rows(
    data: SpeechData,
    config: FilterConfig,
    *,
    normalise: Callable[[str], str],
    label_length: Callable[[str], int] | None = None,
    max_label_length: int | None = None,
) -> FilterResult:
    """Judge every row by its columns; no audio is decoded.

    Durations that no column tells are checked later, when the audio is decoded.

    Args:
        data: The training set.
        config: What to keep.
        normalise: Text normaliser of the language, for the WER.
        label_length: Number of tokens of a label, :meth:`LabelBuilder.length`.
        max_label_length: Longest label in tokens.

    Returns:
        The rows that stay, and how many went for which reason.

    Raises:
        InputError: if the data set lacks a column that a filter needs, or no row stays.
    """
    _check_columns(data, config)
    rules = [_duration_rule(data, config), _label_rule(data, label_length, max_label_length)]
    rules += _confidence_rules(data, config)
    if config.wer_threshold is not None:
        rules.append(_wer_rule(data, config.wer_threshold, normalise))  # last: it costs most
    kept, dropped = [], Counter[str]()
    for index in range(len(data)):
        reason = next((reason for rule in rules if (reason := rule(index)) is not None), None)
        if reason is None:
            kept.append(index)
        else:
            dropped[reason] += 1
    result = FilterResult(kept=np.array(kept, np.int64), total=len(data), dropped=dict(dropped.most_common()))
    if not kept:
        raise InputError(
            f"no sample of data set {data.name!r} is left: {result.summary()}; loosen the filters"
        )
    return result


Rule = Callable[[int], str | None]
"""Row number to the reason for dropping it, or None."""


def _check_columns(data: SpeechData, config: FilterConfig) -> None:
    if config.wer_threshold is not None and (data.label_column is None or data.text_column is None):
        missing = "pseudo-labels" if data.label_column is None else "reference texts"
        raise InputError(
            f"wer_threshold {config.wer_threshold:g} compares pseudo-labels with references, but data set "
            f"{data.name!r} has no column of {missing}: name it, or use the filters that need no reference"
        )
    for column, threshold, flag in (
        (AVG_LOGPROB_COLUMN, config.min_avg_logprob, "min_avg_logprob"),
        (NO_SPEECH_PROB_COLUMN, config.max_no_speech_prob, "max_no_speech_prob"),
    ):
        if threshold is not None and not data.has_column(column):
            raise InputError(
                f"{flag} {threshold:g} needs the column {column!r}, which data set {data.name!r} has not: "
                "pseudo-label it again, or leave the filter out"
            )


def _duration_rule(data: SpeechData, config: FilterConfig) -> Rule:
    durations = data.durations()

    def rule(index: int) -> str | None:
        seconds = durations[index]
        if seconds is None:
            return None
        if seconds <= config.min_duration_in_seconds:
            return TOO_SHORT
        return TOO_LONG if seconds >= config.max_duration_in_seconds else None

    return rule


def _label_rule(data: SpeechData, length: Callable[[str], int] | None, limit: int | None) -> Rule:
    labels = data.labels()

    def rule(index: int) -> str | None:
        label = labels[index]
        if label is None:
            return NO_LABEL
        too_long = length is not None and limit is not None and length(label) > limit
        return LABEL_TOO_LONG if too_long else None

    return rule


def _confidence_rules(data: SpeechData, config: FilterConfig) -> list[Rule]:
    """Return the rules that need no reference. A missing value cannot vouch for its row: it goes."""
    rules: list[Rule] = []

    def add(values: list[float | None], keep: Callable[[float], bool], reason: str) -> None:
        def rule(index: int) -> str | None:
            value = values[index]
            return None if value is not None and keep(value) else reason

        rules.append(rule)

    if (minimum := config.min_avg_logprob) is not None:
        values = data.column(AVG_LOGPROB_COLUMN)
        add(values, lambda value: value >= minimum, "below the average log-probability threshold")
    if (no_speech := config.max_no_speech_prob) is not None:
        values = data.column(NO_SPEECH_PROB_COLUMN)
        add(values, lambda value: value <= no_speech, "above the no-speech threshold")
    if (ratio := config.max_compression_ratio) is not None:
        if data.has_column(COMPRESSION_RATIO_COLUMN):
            values = data.column(COMPRESSION_RATIO_COLUMN)
        else:
            values = [
                None if label is None else compression_ratio(spoken_text(label)) for label in data.labels()
            ]
        add(values, lambda value: value <= ratio, "above the compression-ratio threshold")
    return rules


def _wer_rule(data: SpeechData, threshold: float, normalise: Callable[[str], str]) -> Rule:
    references, labels = data.references(), data.labels()

    def rule(index: int) -> str | None:
        spoken = spoken_text(labels[index] or "")
        wer = sample_wer(references[index] or "", spoken, normalise)
        if wer is None:
            return EMPTY_REFERENCE
        return None if wer < threshold else HIGH_WER

    return rule
