"""An endless, shuffled, resumable stream of training batches.

The stream runs on over the ends of epochs, so no sample is lost to a last partial batch: within
any ``samples_per_epoch`` draws that start at an epoch's beginning every row comes up once. Its
position is one number, so resuming decodes nothing that was already used.

Several processes share the stream, each taking every so-many-th place::

    epoch     0                   1
    place     0   1   2   3   4   5   6   7   8   9
    process   0   1   0   1   0   1   0   1   0   1

so that what all of them drew together is what one process would have drawn, whatever the number
of rows.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_distil.core import InputError
from flax_distil.data.batches import Batch, LabelledSample, check_buckets, collate
from flax_distil.data.labels import DECODER_POSITIONS, LabelBuilder, sample_random
from flax_distil.data.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.samples import DurationLimits, SampleError, SampleReader
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.speech_data import SpeechData, require_columns

if TYPE_CHECKING:
    import grain


class TrainingPipeline:
    """Batches of decoded audio and labels, for ever.

    Each batch is what :func:`flax_distil.data.batches.collate` makes, with labels, all rows
    valid, and ``epoch``: how many whole passes were made before its first sample.

    A row without readable audio or usable label is skipped, its place taken by the next one.
    Whether that happens depends on the row alone, never on the run, so that a resumed run sees
    the batches that an uninterrupted one would have. With several shards, the next place of the
    same shard is taken; the others do not notice.

    Args:
        data: The training set, filtered.
        labels: Makes the labels.
        config: Batch size, threads and shard.
        seed: Decides on order, timestamps and prompts.
        shuffle: False keeps the order of rows.
        min_duration_seconds: Recordings must be longer.
        max_duration_seconds: Recordings must be shorter.
        previous_column: Column of the text before each row, for prompts.
        needs_audio: Called for each row before its audio is decoded, from any thread.
        skipped: Where skipped rows are recorded.

    Raises:
        InputError: if a column is missing or the buckets do not hold the labels.
    """

    def __init__(
        self,
        data: SpeechData,
        labels: LabelBuilder,
        config: PipelineConfig,
        *,
        seed: int,
        shuffle: bool = True,
        min_duration_seconds: float = 0.0,
        max_duration_seconds: float = 30.0,
        previous_column: str | None = None,
        needs_audio: NeedsAudio | None = None,
        skipped: SkippedSamples | None = None,
    ):
        require_columns(data.table, [previous_column] if previous_column else [], name=data.name)
        check_buckets(
            config.label_buckets, longest=DECODER_POSITIONS if previous_column else labels.max_label_length
        )
        self.skipped = SkippedSamples() if skipped is None else skipped
        self._config, self._labels, self._seed, self._shuffle = config, labels, seed, shuffle
        self._needs_audio = needs_audio or (lambda index: True)
        self._previous: Sequence[str | None] = (
            data.column(previous_column) if previous_column else [None] * len(data)
        )
        self._reader = SampleReader(
            data,
            DurationLimits(
                min_seconds=min_duration_seconds, max_seconds=max_duration_seconds, allow_max=False
            ),
        )
        self._name = data.name
        self._rows = len(data)
        self._shard, self._shards = config.shard_index, config.shard_count
        # Unshuffled, a shard comes back to the same rows in every epoch, perhaps to a part of them only.
        self._reachable = self._rows if shuffle else self._rows // math.gcd(self._rows, self._shards)
        # A prompt fills what its label leaves of the decoder's positions: the last bucket holds both.
        self._buckets = (
            config.label_buckets[-1:]
            if previous_column and self._shards > 1
            else config.buckets_for(data, labels, range(self._rows))
        )
        self._fingerprint = hashlib.blake2b("\0".join(data.ids()).encode(), digest_size=16).hexdigest()
        self._rejected: set[int] = set()
        self._iterator = self._open()

    @property
    def samples_per_epoch(self) -> int:
        """Rows of the data set, those counted that turn out to be unusable."""
        return self._rows

    def __iter__(self) -> "TrainingPipeline":
        return self

    def __next__(self) -> Batch:
        batch: Batch = next(self._iterator)
        return batch

    def get_state(self) -> dict[str, Any]:
        """Return the position after the last batch handed out, as JSON takes it."""
        return {
            **self._identity(),
            "shard_count": self._shards,
            "shard_index": self._shard,
            "iterator": self._iterator.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`get_state` was called; the next batch is the next one of that run.

        The batch size and the number of threads may differ.

        Raises:
            InputError: if the state is of another data set, seed or order, or of another shard.
        """
        self._check_shard(state)
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise InputError(
                    f"cannot resume: the training data's {key} was {state.get(key)!r} and is {value!r}; "
                    "use the data set, filters and seed of the interrupted run"
                )
        self._iterator.set_state(state["iterator"])

    def close(self) -> None:
        """Stop the threads; no batch can be read afterwards."""
        self._iterator.close()

    def _check_shard(self, state: dict[str, Any]) -> None:
        shards, shard = state.get("shard_count", 1), state.get("shard_index", 0)
        if shards != self._shards:
            raise InputError(
                f"cannot resume: the interrupted run read its training data in {shards} process(es) and "
                f"this one has {self._shards}: start as many processes as then"
            )
        if shard != self._shard:
            raise InputError(
                f"cannot resume: this position in the training data is that of process {shard}, not of "
                f"process {self._shard}: give every process its own"
            )

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a position to mean the same sample."""
        return {
            "rows": self._rows,
            "fingerprint": self._fingerprint,
            "seed": self._seed,
            "shuffle": self._shuffle,
        }

    def _open(self) -> "grain.DatasetIterator[Batch]":
        import grain

        stream = grain.MapDataset.range(self._rows)
        if self._shuffle:
            # grain adds the epoch's number to the seed: without hashing, neighbouring seeds would
            # give each other's epochs.
            stream = stream.shuffle(int(np.random.SeedSequence(self._seed).generate_state(1)[0]))
        samples = stream.repeat()[self._shard :: self._shards].map_with_index(self._load)
        batches = samples.to_iter_dataset(
            grain.ReadOptions(
                num_threads=self._config.threads, prefetch_buffer_size=self._config.samples_ahead
            )
        ).batch(self._config.batch_size, drop_remainder=True, batch_fn=self._collate)
        return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))

    def _load(self, position: int, index: int) -> LabelledSample | None:
        """Make the sample at a position of this shard; None (left out by grain) if its row is unusable."""
        index = int(index)
        if index in self._rejected:
            return None
        epoch = (self._shard + position * self._shards) // self._rows
        try:
            sample = self._reader.read(index, load_audio=self._needs_audio(index))
            random = sample_random(seed=self._seed, epoch=epoch, sample_id=sample.sample_id)
            label = self._labels.build(sample.label, previous=self._previous[index], random=random)
        except SampleError as error:
            self._reject(index, error)
            return None
        return LabelledSample(sample=sample, label=label, epoch=epoch)

    def _reject(self, index: int, error: SampleError) -> None:
        self.skipped.add(
            data_set=self._name,
            index=index,
            sample_id=self._reader.sample_id(index),
            kind=error.kind,
            reason=error.reason,
        )
        self._rejected.add(index)
        if len(self._rejected) == self._reachable:
            # Without this the stream would look for a usable row for ever.
            raise InputError(
                f"none of the {self._reachable} samples of data set {self._name!r}"
                f"{'' if self._reachable == self._rows else ' that this process reads'} can be used: "
                f"{error.reason}"
            )

    def _collate(self, samples: Sequence[LabelledSample]) -> Batch:
        join = partial(
            collate,
            batch_size=self._config.batch_size,
            pad_token=self._labels.pad_token,
            buckets=self._buckets,
        )
        return {**join(samples), "epoch": samples[0].epoch}
