"""Make an endless, shuffled, resumable sequence of training batches from tables and streams.

Batches continue over the ends of epochs, so no sample is lost in an incomplete last batch. A position
consists of a few numbers (see :mod:`flax_distil.data.training.global_batches`), so resuming does not decode
samples that were used before, and any number of processes can go on from it.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import grain
import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.non_speech.config import NonSpeechConfig
from flax_distil.core.arrays import Float, Int
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits
from flax_distil.data.preprocessing.config import DECODER_POSITIONS
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.batches import Batch, TokenizedExample, check_buckets, collate, smallest_bucket
from flax_distil.data.training.global_batches import (
    GlobalBatchSampler,
    choose_num_data_shards,
    merge_positions,
    rows_by_shard,
)
from flax_distil.data.training.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.training.prefetch_map import PrefetchMap
from flax_distil.data.training.sample_loader import SampleLoader
from flax_distil.data.training.samplers import MixtureSampler, Sampler, ShuffledSampler
from flax_distil.data.training.stream_rows import StreamRows
from flax_distil.data.training.stream_sampler import NoSampleError, StreamSampler
from flax_distil.data.training.training_sources import TableSource, TrainingData
from flax_distil.parallel.processes import all_gather_object

T = TypeVar("T")

_COUNTED_SAMPLES = 20_000
"""Labels of tables up to this size are counted at the start of training, which takes a second."""


class TrainingPipeline:
    """An endless iterator over batches of decoded audio and labels.

    :func:`flax_distil.data.training.batches.collate` makes the batches, with audio as 16-bit integers, with
    labels, without padding rows, and with ``source_B`` and ``epoch``. They have ``seed_B`` and ``lengths_B``
    only if devices augment the audio, and ``kl_weight_B`` only if the data sets have weights of the KL term,
    or some samples are clips without speech, whose weight is 0.

    Tables without weights are concatenated, and an epoch has every sample once. Otherwise data sets are mixed
    in the proportions of their weights.

    A sample without readable audio or usable label leaves its row empty: ``valid_B`` is False there, and it
    has silence and no label token that counts. So it moves no other sample, whichever process meets it.

    Args:
        data: The data sets.
        config: Batch size, threads and shard.
        seed: Seed of the order, of augmentation, of timestamps and of prompts.
        shuffle: Whether to shuffle samples; False keeps the order of rows.
        restart: Whether all data sets of a mixture restart when the first one is exhausted.
        limits: Limits of the duration of recordings; by default the length of a window.
        needs_audio: Function that any thread calls for each sample of a single table before it is decoded.
        augmentation: Configuration of the augmentation.
        non_speech: Configuration of clips without speech among the samples.

    Raises:
        InputError: If the buckets do not hold the labels.
    """

    def __init__(
        self,
        data: TrainingData,
        config: PipelineConfig,
        *,
        seed: int,
        shuffle: bool = True,
        restart: bool = True,
        limits: DurationLimits | None = None,
        needs_audio: NeedsAudio | None = None,
        augmentation: AugmentationConfig | None = None,
        non_speech: NonSpeechConfig | None = None,
    ):
        for source in data.sources:
            longest = DECODER_POSITIONS if source.gives_prompts else source.labels.max_label_length
            check_buckets(config.label_buckets, longest=longest)
        self.drawn = np.zeros(len(data.sources), np.int64)
        """Number of samples that this process used of each data set; the first one continues the count of a
        run that is resumed."""
        self._data, self._config = data, config
        self._seed, self._shuffle, self._restart = seed, shuffle, restart
        self._load = SampleLoader(
            data,
            config,
            seed=seed,
            limits=limits,
            needs_audio=needs_audio,
            augmentation=augmentation,
            non_speech=non_speech,
        )
        self._buckets = self._label_buckets()
        self._fingerprint = "-".join(source.fingerprint() for source in data.sources)
        self._streams: dict[int, list[StreamSampler]] = {}
        self._has_all_audio = needs_audio is None
        self._num_data_shards = choose_num_data_shards(data, config.shard_count)
        self._iterator = self._open()

    @property
    def skipped(self) -> SkippedSamples:
        """Rows that cannot be used."""
        return self._data.skipped

    def __iter__(self) -> "TrainingPipeline":
        return self

    def __next__(self) -> Batch:
        try:
            batch: Batch = next(self._iterator)
        except NoSampleError as error:
            names = "+".join(source.name for source in self._data.sources)
            raise InputError(
                f"no sample of data set {names!r} is left in a whole pass over it: loosen the filters"
            ) from error
        self.drawn += np.bincount(batch.source_B[batch.valid_B], minlength=len(self.drawn))
        return batch

    def largest_bucket(self) -> int:
        """Return the maximum target length of a batch; for large tables, that of the label limit."""
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._largest_bucket(count_up_to=_COUNTED_SAMPLES)

    def buckets_below(self, tokens: int) -> tuple[int, ...]:
        """Return the target lengths below ``tokens`` that a batch may have, in descending order."""
        return tuple(bucket for bucket in reversed(self._buckets) if bucket < tokens)

    def proportions(self) -> str:
        """Return a line with the number and share of the samples that were used of each data set.

        All processes must call this.
        """
        drawn = np.sum(self._gather(self.drawn.tolist()), axis=0)
        total = max(1, int(drawn.sum()))
        parts = (
            f"{source.name} {count} ({count / total:.1%})"
            for source, count in zip(self._data.sources, drawn, strict=True)
        )
        return "samples drawn: " + ", ".join(parts)

    def dropped(self) -> DropReport:
        """Return what the filters dropped of streamed data sets in the first pass over them.

        All processes must call this.
        """
        reports = {
            str(shard): DropReport.merge(stream.dropped.get_state() for stream in streams).get_state()
            for shard, streams in self._streams.items()
        }
        by_shard = {shard: report for part in self._gather(reports) for shard, report in part.items()}
        return DropReport.merge(by_shard.values())

    def get_state(self) -> dict[str, Any]:
        """Return the position of the run after the last batch, in a form for JSON.

        All processes must call this after the same batch.
        """
        return self.merge_states(self._gather(self.get_local_state()))

    def get_local_state(self) -> dict[str, Any]:
        """Return what this process knows of the position of the run, see :meth:`merge_states`."""
        return {
            **self._identity(),
            "num_data_shards": self._num_data_shards,
            "global_batch_size": self._config.global_batch_size,
            "drawn": self.drawn.tolist(),
            "shards": self._iterator.get_state(),
        }

    @staticmethod
    def merge_states(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the position of a run, given what each of its processes knows of it."""
        return parts[0] | merge_positions(parts)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue at a position from :meth:`get_state`, of any number of processes.

        The batch size and the number of threads may differ.

        Raises:
            InputError: If the position belongs to other data, another seed or order, or to a version of this
                package that wrote a position per process.
        """
        if "shards" not in state:
            raise InputError(
                "cannot resume: this position in the training data was saved by an earlier version of "
                "flax_distil; resume the run with that version, or start it again"
            )
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise InputError(
                    f"cannot resume: the training data's {key} was {state.get(key)!r} and is {value!r}; "
                    "use the data sets, filters and seed of the interrupted run"
                )
        if state["num_data_shards"] != self._num_data_shards:
            self._iterator.close()
            self._num_data_shards = state["num_data_shards"]
            self._iterator = self._open()
        drawn = np.array(state["drawn"], np.int64)
        self.drawn = drawn if self._config.shard_index == 0 else np.zeros_like(drawn)
        self._iterator.set_state(state["shards"])

    def close(self) -> None:
        """Stop the threads; no batch can be read afterwards."""
        self._iterator.close()

    def _gather(self, value: T) -> list[T]:
        """Return the values of all processes, in JSON; of those that read the same rows, that of one."""
        return [*dict(all_gather_object((self._config.shard_index, value))).values()]

    def _identity(self) -> dict[str, Any]:
        """Return the values that must be equal for a position to mean the same sample."""
        return {
            "samples": "+".join(str(size or 0) for size in self._data.sizes),
            "fingerprint": self._fingerprint,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "weights": [source.weight for source in self._data.sources],
            "restart": self._restart,
            "shuffle_buffer_size": self._config.shuffle_buffer_size,
        }

    def _label_buckets(self) -> tuple[int, ...]:
        """Return the buckets of batches; with several shards there is one, the same in all of them."""
        if self._config.shard_count == 1:
            return self._config.label_buckets
        return (self._largest_bucket(count_up_to=sys.maxsize),)

    def _largest_bucket(self, *, count_up_to: int) -> int:
        """Return the bucket of the longest label, which is counted in tables of at most this size."""
        longest = 0
        for source in self._data.sources:
            if source.gives_prompts:  # a prompt may fill all positions that its label leaves free
                return self._config.label_buckets[-1]
            known = source.longest_label if isinstance(source, TableSource) else None
            if isinstance(source, TableSource) and source.packs is None and known is not None:
                longest = max(longest, known)
            elif isinstance(source, TableSource) and source.packs is None and len(source) <= count_up_to:
                longest = max(longest, source.labels.longest(source.data.labels()))
            else:
                longest = max(longest, source.labels.max_label_length)
        return smallest_bucket(longest, self._config.label_buckets)

    def _open(self) -> "grain.DatasetIterator[Batch]":
        batches = _Samples(self._samples).batch(
            self._config.batch_size, drop_remainder=True, batch_fn=self._collate
        )
        return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))

    def _samples(self) -> "grain.DatasetIterator[TokenizedExample]":
        rows = rows_by_shard(
            self._config.rows,
            global_batch_size=self._config.global_batch_size,
            num_data_shards=self._num_data_shards,
        )
        self._streams = {part.shard: [] for part in rows}
        return PrefetchMap(
            GlobalBatchSampler(rows, self._sampler),
            self._load,
            threads=self._config.threads,
            ahead=self._config.samples_ahead,
        )

    def _sampler(self, data_shard: int) -> Sampler:
        """Return the order of the samples of one data shard."""
        seed = self._seed if self._shuffle else None
        shard = {"shard_index": data_shard, "shard_count": self._num_data_shards}
        if self._data.is_concatenated:
            return ShuffledSampler([size or 0 for size in self._data.sizes], seed=seed, **shard)
        parents: list[Sampler] = []
        for number, source in enumerate(self._data.sources):
            if isinstance(source, TableSource):
                parents.append(ShuffledSampler([len(source)], first_source=number, seed=seed, **shard))
            else:
                samples = StreamSampler(
                    number,
                    StreamRows(source.stream, seed=seed, **shard),
                    make=partial(source.samples, skipped=self._data.skipped),
                    window_size=self._config.shuffle_buffer_size,
                    seed=seed,
                )
                self._streams[data_shard].append(samples)
                parents.append(samples)
        weights = [1.0 if source.weight is None else source.weight for source in self._data.sources]
        return parents[0] if len(parents) == 1 else MixtureSampler(parents, weights, restart=self._restart)

    def _collate(self, samples: Sequence[TokenizedExample]) -> Batch:
        batch = collate(
            samples,
            batch_size=self._config.batch_size,
            pad_token=self._data.sources[0].labels.pad_token,
            buckets=self._buckets,
            always_audio=self._has_all_audio,
            audio_dtype=np.dtype(np.int16),
            window_samples=self._config.window_samples,
        )
        source_B = np.array([sample.source for sample in samples], np.int32)
        batch = dataclasses.replace(
            batch,
            source_B=source_B,
            epoch=samples[0].epoch,
            kl_weight_B=self._kl_weights(samples, source_B),
        )
        if not self._load.augmenter.config.on_device:
            return batch
        # Devices leave what has no length as it is: babble would be speech where nobody speaks.
        lengths = [
            round(sample.sample.duration_seconds * SAMPLING_RATE) * sample.is_speech for sample in samples
        ]
        return dataclasses.replace(
            batch,
            seed_B=np.array([sample.sample.seed for sample in samples], np.uint32),
            lengths_B=np.array(lengths, np.int32),
        )

    def _kl_weights(
        self, samples: Sequence[TokenizedExample], source_B: Int[np.ndarray, " B"]
    ) -> Float[np.ndarray, " B"] | None:
        """Return the factor of the KL term for each row; None where it is 1 for all rows of all batches."""
        by_source = self._data.kl_weights
        if by_source is None and not self._load.non_speech.config.replaces_samples:
            return None
        weights_B = np.ones(len(samples)) if by_source is None else np.array(by_source)[source_B]
        return (weights_B * [sample.is_speech for sample in samples]).astype(np.float32)


class _Samples(grain.IterDataset[TokenizedExample]):
    """A data set of grain, made from a function that returns an iterator."""

    def __init__(self, make: Callable[[], "grain.DatasetIterator[TokenizedExample]"]):
        super().__init__()
        self._make = make

    def __iter__(self) -> "grain.DatasetIterator[TokenizedExample]":
        return self._make()
