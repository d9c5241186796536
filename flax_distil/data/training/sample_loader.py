"""Load a training sample by its index: decode its audio and tokenize its text."""

import dataclasses
from functools import partial

import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import (
    DecodedExample,
    DurationLimits,
    SampleError,
    SampleReader,
    decode_row,
)
from flax_distil.data.preprocessing.labels import LabelBuilder, LabelTokens, sample_random
from flax_distil.data.preprocessing.packed_audio import decode_pack
from flax_distil.data.preprocessing.packing import PackedRows
from flax_distil.data.training.augmentation import Augmenter
from flax_distil.data.training.batches import TokenizedExample
from flax_distil.data.training.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.training.samplers import SampleIndex
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingData


class SampleLoader:
    """Decodes, augments and tokenizes samples; any thread may use it.

    A sample of a table that cannot be used is remembered and not tried again.

    Args:
        data: The data sets.
        config: Configuration with shard, window and retry policy.
        seed: Seed of augmentation, of timestamps and of prompts.
        limits: Limits of the duration of recordings; by default the length of a window.
        needs_audio: Function that any thread calls for each sample of a single table before it is decoded; by
            default every sample is decoded.
        augmentation: Configuration of the augmentation; by default there is none.
    """

    def __init__(
        self,
        data: TrainingData,
        config: PipelineConfig,
        *,
        seed: int,
        limits: DurationLimits | None,
        needs_audio: NeedsAudio | None,
        augmentation: AugmentationConfig | None,
    ):
        self._data, self._config, self._seed = data, config, seed
        self._is_alone = config.shard_count == 1
        self._limits = limits or DurationLimits(max_seconds=config.window_seconds)
        self.augmenter = Augmenter(
            augmentation or AugmentationConfig(),
            data.noise,
            policy=config.policy,
            window_seconds=config.window_seconds,
            skipped=data.skipped,
        )
        self._needs_audio = needs_audio or (lambda number: True)
        if needs_audio is not None:
            (table,) = data.sources
            assert isinstance(table, TableSource)
            self._reader = SampleReader(table.data, self._limits, policy=config.policy)
        self._rejected: list[set[int]] = [set() for _ in data.sources]
        # The last epoch with a usable sample, by number of the stream.
        self._last_usable: dict[int, int] = {}

    def __call__(self, index: SampleIndex) -> TokenizedExample:
        """Load a sample; one that cannot be used is replaced by :meth:`TokenizedExample.unusable`.

        Raises:
            InputError: If no sample of its data set can be used; several processes, of which each loads only
                a part of them, do not find this out here.
        """
        return self._load(index) or TokenizedExample.unusable(source=index.source, epoch=index.epoch)

    def _load(self, index: SampleIndex) -> TokenizedExample | None:
        source = self._data.sources[index.source]
        if isinstance(source, StreamSource):
            assert index.rows is not None
            made = self._make(index, index.rows)
            self._check_epoch(index, is_usable=made is not None)
            return made
        if index.number in self._rejected[index.source]:
            return None
        load_audio = self._needs_audio(index.number)
        made = self._make(index, source.read(index.number, load_audio=load_audio), load_audio=load_audio)
        if made is None:
            self._reject(index)
        return made

    def _make(
        self, index: SampleIndex, packed: PackedRows, *, load_audio: bool = True
    ) -> TokenizedExample | None:
        source, first = self._data.sources[index.source], packed.rows[0]
        random = sample_random(seed=self._seed, epoch=index.epoch, sample_id=first.sample_id)
        try:
            sample = self._decode(index, packed, load_audio=load_audio)
            if sample is None:
                return None
            augmented = self.augmenter(sample, random)
            label = self._tokenize(source.labels, sample, packed, random, speed=augmented.speed)
        except SampleError as error:
            self._data.skipped.reject(first, error, data_set=source.name)
            return None
        return TokenizedExample(sample=augmented, label=label, source=index.source, epoch=index.epoch)

    def _decode(self, index: SampleIndex, packed: PackedRows, *, load_audio: bool) -> DecodedExample | None:
        policy = self._config.policy
        if len(packed.rows) > 1:
            joined = decode_pack(
                packed.rows,
                self._limits,
                partial(self._data.skipped.reject, data_set=self._data.sources[index.source].name),
                policy=policy,
                window_seconds=self._config.window_seconds,
            )
            return None if joined is None else dataclasses.replace(joined, index=index.number)
        if load_audio:
            return decode_row(packed.rows[0], self._limits, policy=policy)
        return self._reader.read(index.number, load_audio=False)

    @staticmethod
    def _tokenize(
        labels: LabelBuilder,
        sample: DecodedExample,
        packed: PackedRows,
        random: np.random.Generator,
        *,
        speed: float,
    ) -> LabelTokens:
        if sample.parts:
            return labels.build_joined(sample.parts, previous=packed.previous, random=random, speed=speed)
        return labels.build(
            sample.label,
            previous=packed.previous,
            random=random,
            speed=speed,
            seconds=sample.duration_seconds,
        )

    def _check_epoch(self, index: SampleIndex, *, is_usable: bool) -> None:
        """Raise ``InputError`` if a complete epoch of a stream had no usable sample."""
        last = self._last_usable.setdefault(index.source, index.epoch)
        if is_usable:
            self._last_usable[index.source] = max(last, index.epoch)
        elif self._is_alone and index.epoch > last + 1:
            name = self._data.sources[index.source].name
            raise InputError(
                f"no sample of data set {name!r} can be used in a whole pass "
                f"over it: {self._data.skipped.samples()[-1].reason}"
            )

    def _reject(self, index: SampleIndex) -> None:
        """Remember a sample of a table that cannot be used; raise ``InputError`` if it was the last one."""
        self._rejected[index.source].add(index.number)
        sizes = self._data.sizes
        numbers = range(len(sizes)) if self._data.is_concatenated else [index.source]
        samples = sum(sizes[number] or 0 for number in numbers)
        if self._is_alone and sum(len(self._rejected[number]) for number in numbers) == samples:
            names = "+".join(self._data.sources[number].name for number in numbers)
            raise InputError(
                f"none of the {samples} samples of data set {names!r} can be used: "
                f"{self._data.skipped.samples()[-1].reason}"
            )
