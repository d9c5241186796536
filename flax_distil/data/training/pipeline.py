"""An endless, shuffled, resumable stream of training batches, from tables and streams alike.

It runs on over the ends of epochs, so no sample is lost to a last partial batch. Its position is
a few numbers (see :mod:`flax_distil.data.training.samplers`), so resuming decodes nothing that was
used before.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grain
import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DurationLimits, SampleError, SampleReader, decode_row
from flax_distil.data.preprocessing.config import DECODER_POSITIONS
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.labels import sample_random
from flax_distil.data.preprocessing.packed_audio import decode_pack
from flax_distil.data.preprocessing.packing import PackedRows
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.augmentation import Augmenter
from flax_distil.data.training.batches import Batch, TokenizedExample, check_buckets, collate, smallest_bucket
from flax_distil.data.training.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.training.prefetch_map import PrefetchMap
from flax_distil.data.training.samplers import MixtureSampler, SampleIndex, Sampler, ShuffledSampler
from flax_distil.data.training.stream_rows import StreamRows
from flax_distil.data.training.stream_sampler import NoSampleError, StreamSampler
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingSource

_COUNTED_SAMPLES = 20_000
"""Labels of tables up to this size are counted at the start of a run: a second."""


class TrainingPipeline:
    """Batches of decoded audio and labels, for ever.

    Each batch is what :func:`flax_distil.data.training.batches.collate` makes, its audio as 16-bit integers,
    with labels, all rows valid, and

    ==============  ===========  ==================================================================
    ``source_B``    int32 [B]    number of the data set
    ``seed_B``      uint32 [B]   of what is done to the audio on the device; only if anything is
    ``lengths_B``   int32 [B]    samples of each recording; likewise
    ``epoch``       int          passes that had been made over the data set of the first sample
    ==============  ===========  ==================================================================

    Tables without weights are put one after the other, and every sample comes once in an epoch.
    Otherwise data sets are mixed in the proportions of their weights.

    A sample without readable audio or usable label is skipped, its place taken by the next one.
    Whether that happens depends on the sample alone, never on the run, so that a resumed run sees
    the batches that an uninterrupted one would have. With several shards, the next place of the
    same shard is taken; the others do not notice.

    Args:
        sources: The data sets.
        config: Batch size, threads and shard.
        seed: Decides on order, timestamps and prompts.
        shuffle: False keeps the order of rows.
        restart: Where data sets are mixed: begin anew with all of them when the first is exhausted.
        limits: Which recordings are taken; by default those of at most 30 s.
        needs_audio: Called for each sample of a single table before it is decoded, from any thread.
        augmentation: What is done to the audio.
        noise: Recordings of noise; needed for recorded noise.
        skipped: Where skipped rows are recorded.

    Raises:
        InputError: if the buckets do not hold the labels, or a stream has fewer files than there are shards.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        config: PipelineConfig,
        *,
        seed: int,
        shuffle: bool = True,
        restart: bool = True,
        limits: DurationLimits | None = None,
        needs_audio: NeedsAudio | None = None,
        augmentation: AugmentationConfig | None = None,
        noise: SpeechDataset | None = None,
        skipped: SkippedSamples | None = None,
    ):
        for source in sources:
            longest = DECODER_POSITIONS if source.gives_prompts else source.labels.max_label_length
            check_buckets(config.label_buckets, longest=longest)
        self.skipped = SkippedSamples() if skipped is None else skipped
        self.drawn = np.zeros(len(sources), np.int64)
        """Samples handed out of each data set, since the beginning of the first run."""
        self._sources, self._config = sources, config
        self._seed, self._shuffle, self._restart = seed, shuffle, restart
        self._limits = limits or DurationLimits(max_seconds=config.window_seconds)
        self._augmenter = Augmenter(
            augmentation or AugmentationConfig(),
            noise,
            policy=config.policy,
            window_seconds=config.window_seconds,
            skipped=self.skipped,
        )
        self._needs_audio = needs_audio or (lambda number: True)
        self._buckets = self._label_buckets()
        self._fingerprint = "-".join(source.fingerprint() for source in sources)
        # Of streams nobody knows.
        self._sizes = [len(source) if isinstance(source, TableSource) else 0 for source in sources]
        self._in_a_row = all(self._sizes) and all(source.weight is None for source in sources)
        self._rejected: list[set[int]] = [set() for _ in sources]
        self._streams: list[StreamSampler] = []
        # By stream, the last pass that gave a sample.
        self._last_usable: dict[int, int] = {}
        if needs_audio is not None:
            (table,) = sources
            assert isinstance(table, TableSource)
            self._reader = SampleReader(table.data, self._limits, policy=config.policy)
        self._iterator = self._open()

    def __iter__(self) -> "TrainingPipeline":
        return self

    def __next__(self) -> Batch:
        try:
            batch: Batch = next(self._iterator)
        except NoSampleError as error:
            names = "+".join(source.name for source in self._sources)
            raise InputError(
                f"no sample of data set {names!r} is left in a whole pass over it: loosen the filters"
            ) from error
        self.drawn += np.bincount(batch["source_B"], minlength=len(self.drawn))
        return batch

    def largest_bucket(self) -> int:
        """Return the longest targets that a batch may have; of large tables, the limit of their labels."""
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._largest_bucket(count_up_to=_COUNTED_SAMPLES)

    def proportions(self) -> str:
        """Return one line: how many samples of each data set were handed out, and their share."""
        total = max(1, int(self.drawn.sum()))
        parts = (
            f"{source.name} {count} ({count / total:.1%})"
            for source, count in zip(self._sources, self.drawn, strict=True)
        )
        return "samples drawn: " + ", ".join(parts)

    def dropped(self) -> DropReport:
        """Return what the filters dropped of streamed data sets in the first pass over them."""
        return DropReport.joined(stream.dropped.get_state() for stream in self._streams)

    def get_state(self) -> dict[str, Any]:
        """Return the position after the last batch handed out, as JSON takes it."""
        return {
            **self._identity(),
            "shard_count": self._config.shard_count,
            "shard_index": self._config.shard_index,
            "drawn": self.drawn.tolist(),
            "iterator": self._iterator.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`get_state` was called; the next batch is the next one of that run.

        The batch size and the number of threads may differ.

        Raises:
            InputError: if the state is of other data, another seed or order, or of another shard.
        """
        self._check_shard(state)
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise InputError(
                    f"cannot resume: the training data's {key} was {state.get(key)!r} and is {value!r}; "
                    "use the data sets, filters and seed of the interrupted run"
                )
        self.drawn = np.array(state["drawn"], np.int64)
        self._iterator.set_state(state["iterator"])

    def close(self) -> None:
        """Stop the threads; no batch can be read afterwards."""
        self._iterator.close()

    def _check_shard(self, state: dict[str, Any]) -> None:
        shards, shard = state["shard_count"], state["shard_index"]
        if shards != self._config.shard_count:
            raise InputError(
                f"cannot resume: the interrupted run read its training data in {shards} process(es) and "
                f"this one has {self._config.shard_count}: start as many processes as then"
            )
        if shard != self._config.shard_index:
            raise InputError(
                f"cannot resume: this position in the training data is that of process {shard}, not of "
                f"process {self._config.shard_index}: give every process its own"
            )

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a position to mean the same sample."""
        return {
            "samples": "+".join(str(size) for size in self._sizes),
            "fingerprint": self._fingerprint,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "weights": [source.weight for source in self._sources],
            "restart": self._restart,
            "shuffle_buffer_size": self._config.shuffle_buffer_size,
        }

    def _label_buckets(self) -> tuple[int, ...]:
        """Return the buckets that batches choose from: with several shards one, the same in all."""
        if self._config.shard_count == 1:
            return self._config.label_buckets
        return (self._largest_bucket(count_up_to=sys.maxsize),)

    def _largest_bucket(self, *, count_up_to: int) -> int:
        """Return the bucket of the longest label, counted in tables of at most so many samples."""
        longest = 0
        for source in self._sources:
            if source.gives_prompts:  # a prompt fills what its label leaves of the decoder's positions
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
        return PrefetchMap(
            self._sampler(), self._load, threads=self._config.threads, ahead=self._config.samples_ahead
        )

    def _sampler(self) -> Sampler:
        seed = self._seed if self._shuffle else None
        shard = {"shard_index": self._config.shard_index, "shard_count": self._config.shard_count}
        if self._in_a_row:
            return ShuffledSampler(self._sizes, seed=seed, **shard)
        parents: list[Sampler] = []
        for number, source in enumerate(self._sources):
            if isinstance(source, TableSource):
                parents.append(ShuffledSampler([len(source)], first_source=number, seed=seed, **shard))
            else:
                samples = StreamSampler(
                    number,
                    StreamRows(source.stream, seed=seed, **shard),
                    make=partial(source.samples, skipped=self.skipped),
                    window_size=self._config.shuffle_buffer_size,
                    seed=seed,
                )
                self._streams.append(samples)
                parents.append(samples)
        weights = [1.0 if source.weight is None else source.weight for source in self._sources]
        return parents[0] if len(parents) == 1 else MixtureSampler(parents, weights, restart=self._restart)

    def _load(self, index: SampleIndex) -> TokenizedExample | None:
        """Make a drawn sample; None (left out) if nothing of it is usable."""
        source = self._sources[index.source]
        if isinstance(source, StreamSource):
            assert index.rows is not None
            made = self._made(index, index.rows)
            self._check_pass(index, usable=made is not None)
            return made
        if index.number in self._rejected[index.source]:
            return None
        load_audio = self._needs_audio(index.number)
        made = self._made(index, source.read(index.number, load_audio=load_audio), load_audio=load_audio)
        if made is None:
            self._reject(index)
        return made

    def _made(
        self, index: SampleIndex, packed: PackedRows, *, load_audio: bool = True
    ) -> TokenizedExample | None:
        source, first = self._sources[index.source], packed.rows[0]
        random = sample_random(seed=self._seed, epoch=index.epoch, sample_id=first.sample_id)
        try:
            if len(packed.rows) > 1:
                joined = decode_pack(
                    packed.rows,
                    self._limits,
                    partial(self.skipped.reject, data_set=source.name),
                    policy=self._config.policy,
                    window_seconds=self._config.window_seconds,
                )
                if joined is None:
                    return None
                made = self._augmenter(dataclasses.replace(joined.sample, index=index.number), random)
                label = source.labels.build_joined(
                    joined.parts, previous=packed.previous, random=random, speed=made.speed
                )
            else:
                sample = (
                    decode_row(first, self._limits, policy=self._config.policy)
                    if load_audio
                    else self._reader.read(index.number, load_audio=False)
                )
                made = self._augmenter(sample, random)
                label = source.labels.build(
                    first.label,
                    previous=packed.previous,
                    random=random,
                    speed=made.speed,
                    seconds=sample.duration_seconds,
                )
        except SampleError as error:
            self.skipped.reject(first, error, data_set=source.name)
            return None
        return TokenizedExample(
            sample=made.sample, label=label, source=index.source, epoch=index.epoch, seed=made.seed
        )

    def _check_pass(self, index: SampleIndex, *, usable: bool) -> None:
        """End the run if a whole pass over a stream gave nothing that can be used."""
        last = self._last_usable.setdefault(index.source, index.epoch)
        if usable:
            self._last_usable[index.source] = max(last, index.epoch)
        elif index.epoch > last + 1:
            raise InputError(
                f"no sample of data set {self._sources[index.source].name!r} can be used in a whole pass "
                f"over it: {self.skipped.samples()[-1].reason}"
            )

    def _reject(self, index: SampleIndex) -> None:
        """Remember a sample of a table that is not tried again; end the run if it was the last."""
        self._rejected[index.source].add(index.number)
        numbers = range(len(self._sources)) if self._in_a_row else [index.source]
        samples = sum(self._sizes[number] for number in numbers)
        # Unshuffled, a shard comes back to the same places in every epoch, perhaps to a part of them only.
        reachable = samples if self._shuffle else samples // math.gcd(samples, self._config.shard_count)
        if sum(len(self._rejected[number]) for number in numbers) == reachable:
            names = "+".join(self._sources[number].name for number in numbers)
            part = "" if reachable == samples else " that this process reads"
            raise InputError(
                f"none of the {reachable} samples of data set {names!r}{part} can be used: "
                f"{self.skipped.samples()[-1].reason}"
            )

    def _collate(self, samples: Sequence[TokenizedExample]) -> Batch:
        batch = collate(
            samples,
            batch_size=self._config.batch_size,
            pad_token=self._sources[0].labels.pad_token,
            buckets=self._buckets,
            audio_dtype=np.dtype(np.int16),
            window_samples=self._config.window_samples,
        )
        batch["source_B"] = np.array([sample.source for sample in samples], np.int32)
        if self._augmenter.config.on_device:
            batch["seed_B"] = np.array([sample.seed for sample in samples], np.uint32)
            batch["lengths_B"] = np.array(
                [round(sample.sample.duration_seconds * SAMPLING_RATE) for sample in samples], np.int32
            )
        return {**batch, "epoch": samples[0].epoch}


class _Samples(grain.IterDataset[TokenizedExample]):
    """An iterator of ours, as grain takes it."""

    def __init__(self, make: Callable[[], "grain.DatasetIterator[TokenizedExample]"]):
        super().__init__()
        self._make = make

    def __iter__(self) -> "grain.DatasetIterator[TokenizedExample]":
        return self._make()
