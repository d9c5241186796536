"""Configuration of how batches are prepared: sizes, threads and shards."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.training.batches import LABEL_BUCKETS, smallest_bucket
from flax_distil.storage.retries import RetryPolicy

NeedsAudio = Callable[[int], bool]
"""Function of a row number that returns whether its recording must be decoded; False if its states are
cached."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How batches are prepared.

    Several processes share a data set, each with its *shard* of the samples, and no sample is used twice.
        Their batches are parts of one global batch, so all of them must have the same shapes. Thus with more
        than one shard, labels are padded to one length, the bucket of the longest label of the whole data
        set, and smaller buckets cannot save padding.

    Args:
        batch_size: Number of samples per batch of this process, for all its devices together.
        num_threads: Number of threads that decode audio; None means the number of the machine's cores, at
            most 16; 0 decodes in the thread that makes the batches.
        prefetch_batches: Number of batches that are decoded before they are needed.
        policy: Policy for repeating failed requests; by default the policy of each data set.
        window_seconds: Length of the window of the encoder. Recordings are padded to it, and longer
            recordings are not used.
        shuffle_buffer_size: Number of rows of a stream that are shuffled and joined together.
        label_buckets: Target lengths to which batches are padded, in ascending order.
        shard_index: Number of the part of the samples that this process reads, counted from 0.
        shard_count: Number of parts, one per process.
    """

    batch_size: int
    num_threads: int | None = None
    prefetch_batches: int = 2
    policy: RetryPolicy | None = None
    window_seconds: float = float(CHUNK_SECONDS)
    shuffle_buffer_size: int = 500
    label_buckets: tuple[int, ...] = LABEL_BUCKETS
    shard_index: int = 0
    shard_count: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "prefetch_batches", "shuffle_buffer_size", "shard_count"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.window_seconds <= CHUNK_SECONDS:
            raise InputError(
                f"window_seconds {self.window_seconds:g} is not above 0 and at most {CHUNK_SECONDS}"
            )
        if self.num_threads is not None and self.num_threads < 0:
            raise InputError(f"num_threads must not be negative, got {self.num_threads}")
        if not 0 <= self.shard_index < self.shard_count:
            raise InputError(
                f"shard_index must lie between 0 and {self.shard_count - 1}, got {self.shard_index}"
            )

    @property
    def global_batch_size(self) -> int:
        """Number of samples per batch of all processes."""
        return self.batch_size * self.shard_count

    @property
    def rows(self) -> range:
        """Rows of the global batch that this process reads."""
        first = self.shard_index * self.batch_size
        return range(first, first + self.batch_size)

    @property
    def window_samples(self) -> int:
        """Number of audio samples of one row of a batch."""
        return round(self.window_seconds * SAMPLING_RATE)

    @property
    def threads(self) -> int:
        """Number of threads that decode audio."""
        return min(16, os.cpu_count() or 1) if self.num_threads is None else self.num_threads

    @property
    def samples_ahead(self) -> int:
        """Number of samples that are decoded before they are needed."""
        return max(self.threads, self.prefetch_batches * self.batch_size)

    def buckets_for(self, data: SpeechDataset, labels: LabelBuilder, rows: Iterable[int]) -> tuple[int, ...]:
        """Return the buckets of batches; with several shards there is one, which is the same in all shards.

        Args:
            data: The data set.
            labels: Builder of the labels.
            rows: Numbers of all rows that are read, also by other shards.
        """
        if self.shard_count == 1:
            return self.label_buckets
        texts = data.labels()
        return (smallest_bucket(labels.longest(texts[row] for row in rows), self.label_buckets),)
