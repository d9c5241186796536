"""Configuration that all commands which read data sets share."""

import dataclasses
import math

from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.storage.retries import RetryPolicy
from flax_distil.text.normalizers import check_normalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelConfig:
    """Channels.

    Attributes:
        channel: Channel of the recordings to use, counted from 0; by default the mean of all channels.

    Raises:
        InputError: If no recording can have this channel.
    """

    channel: int | None = None

    def __post_init__(self) -> None:
        if self.channel is not None and (not isinstance(self.channel, int) or self.channel < 0):
            raise InputError(
                f"channel {self.channel!r} is not the number of a channel: channels are counted from 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingConfig(ChannelConfig):
    """Data sets.

    Attributes:
        audio_column_name: Column of recordings; joined by + for several data sets.
        text_column_name: Column of reference texts; joined by + for several data sets.
        streaming: Read data sets from front to back, a few rows at a time, instead of all of their files
            before the first sample.
        dataset_cache_dir: Folder for downloaded and converted data sets, and for the decisions of
            filters.
        source_retry_seconds: How many seconds failed requests to a server or bucket are repeated before the
            command ends with an error.
        normalizer: How texts are made comparable before their words are compared: whisper (as in published
            figures), basic_keep_marks (for languages with vowel signs, and for Turkish), indic, or none.
        dataloader_num_workers: Number of threads that decode audio; by default the number of the machine's
            cores.

    Raises:
        InputError: If a value is unknown or out of range.
    """

    audio_column_name: str = "audio"
    text_column_name: str | None = "text"
    streaming: bool = False
    dataset_cache_dir: str | None = None
    source_retry_seconds: float = 1800.0
    normalizer: str = "whisper"
    dataloader_num_workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "dataloader_num_workers")
        check_normalizer(self.normalizer)
        if self.source_retry_seconds < 0:
            raise InputError(f"source_retry_seconds {self.source_retry_seconds:g} is negative")

    def dataset_spec(self, name: str) -> DatasetSpec:
        """Return how these settings open data sets: their only split, all samples, and no labels.

        Args:
            name: Data set, or several joined by +.
        """
        return DatasetSpec(
            name=name,
            audio_column=self.audio_column_name,
            text_column=self.text_column_name,
            cache_dir=self.dataset_cache_dir,
            policy=self.retries,
            channel=self.channel,
            streaming=self.streaming,
        )

    @property
    def retries(self) -> RetryPolicy:
        """How failed requests to a server are repeated."""
        return RetryPolicy.with_limit(self.source_retry_seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerConfig:
    """Joining samples of one speaker.

    Attributes:
        speaker_column_name: Column that identifies the speaker of a sample; by default speaker_id, speaker or
            source_id where there is such a column. Joined by + for several data sets.
        concatenate_audio: Join neighboring samples of one speaker to up to max_concatenated_seconds.
        max_concatenated_seconds: Longest sample that is made by joining; at most 30. Samples that are longer
            by themselves stay alone.
        sort_by_speaker: Sort the samples of each table by speaker first. Where speakers take turns, samples
            can then be joined, and prompted with the text before them.
    """

    speaker_column_name: str | None = None
    concatenate_audio: bool = False
    max_concatenated_seconds: float = 30.0
    sort_by_speaker: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_concatenated_seconds <= 30:
            raise InputError(
                f"max_concatenated_seconds {self.max_concatenated_seconds:g} is not above 0 and at most 30, "
                "the seconds of one window"
            )

    def check_streaming(self, streaming: bool) -> None:
        """Raise ``InputError`` if the rows of a stream are to be sorted, which are never read all at once."""
        if self.sort_by_speaker and streaming:
            raise InputError("sort_by_speaker sorts tables, and streaming reads none: leave one of them out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DurationConfig:
    """Lengths of recordings.

    Attributes:
        min_duration_in_seconds: Leave out recordings that are not longer than this.
        max_duration_in_seconds: Leave out recordings that are longer than this.

    Raises:
        InputError: If no recording is of such a length.
    """

    min_duration_in_seconds: float = 0.0
    max_duration_in_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_duration_in_seconds < self.longest:
            raise InputError(
                f"min_duration_in_seconds {self.min_duration_in_seconds:g} and max_duration_in_seconds "
                f"{'(none)' if self.max_duration_in_seconds is None else format(self.longest, 'g')} leave no "
                "recording: give 0 <= min < max"
            )

    @property
    def longest(self) -> float:
        """``max_duration_in_seconds``, or infinity."""
        return math.inf if self.max_duration_in_seconds is None else self.max_duration_in_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseDatasetConfig:
    """Recorded noise.

    Attributes:
        noise_dataset_name: Data set with recordings of noise, of any kind that is accepted for speech.
    """

    noise_dataset_name: str | None = None

    def spec(self, reading: ReadingConfig) -> DatasetSpec | None:
        """Return the data set of noise, if one is named, with the cache and the retries of the others."""
        if self.noise_dataset_name is None:
            return None
        return DatasetSpec(
            name=self.noise_dataset_name, cache_dir=reading.dataset_cache_dir, policy=reading.retries
        )
