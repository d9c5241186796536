"""Load a training sample by its index: decode its audio and tokenize its text."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.non_speech.config import NonSpeechConfig
from flax_distil.audio.non_speech.mixing import NonSpeechMixer
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
        non_speech: Configuration of clips without speech; by default there are none.
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
        non_speech: NonSpeechConfig | None,
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
        self.non_speech = NonSpeechMixer(
            non_speech or NonSpeechConfig(), seed=seed, window_seconds=config.window_seconds
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
            clip = self._draw_clip(index, index.rows)
            if clip is not None:
                return self._make_without_speech(index, index.rows, clip)
            made = self._make(index, index.rows)
            self._check_epoch(index, is_usable=made is not None)
            return made
        is_rejected = index.number in self._rejected[index.source]
        # A clip may stand for a rejected sample too: a run that was just resumed has rejected none yet.
        if is_rejected and not self.non_speech.config.replaces_samples:
            return None
        load_audio = self._needs_audio(index.number) and not is_rejected
        packed = source.read(index.number, load_audio=load_audio)
        clip = self._draw_clip(index, packed)
        if clip is not None:
            return self._make_without_speech(index, packed, clip)
        made = None if is_rejected else self._make(index, packed, load_audio=load_audio)
        if made is None and not is_rejected:
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
            augmented = self._surround(index, packed, self.augmenter(sample, random))
            label = self._tokenize(source.labels, sample, packed, random, augmented=augmented)
        except SampleError as error:
            self._data.skipped.reject(first, error, data_set=source.name)
            return None
        return TokenizedExample(sample=augmented, label=label, source=index.source, epoch=index.epoch)

    def _draw_clip(self, index: SampleIndex, packed: PackedRows) -> int | None:
        """Return the number of the clip that stands in the place of a sample in this epoch; None for none."""
        return self.non_speech.draw_clip(self._non_speech_random(index, packed))

    def _non_speech_random(self, index: SampleIndex, packed: PackedRows) -> np.random.Generator:
        """Return random numbers apart from the others, so that these stay as they are without clips."""
        sample_id = f"non-speech {packed.rows[0].sample_id}"
        return sample_random(seed=self._seed, epoch=index.epoch, sample_id=sample_id)

    def _make_without_speech(
        self, index: SampleIndex, packed: PackedRows, number: int
    ) -> TokenizedExample | None:
        source, first, clip = self._data.sources[index.source], packed.rows[0], self.non_speech.clip(number)
        random = sample_random(seed=self._seed, epoch=index.epoch, sample_id=first.sample_id)
        row = number + (len(source.data) if isinstance(source, TableSource) else 0)
        try:
            label = source.labels.build_without_speech(
                [one.label for one in packed.rows], previous=packed.previous, random=random
            )
        except SampleError as error:
            self._data.skipped.reject(first, error, data_set=source.name)
            return None
        sample = DecodedExample(
            index=row,
            sample_id=clip.name,
            samples_W=clip.samples() if self._needs_audio(row) else None,
            duration_seconds=clip.seconds,
            reference=None,
            label=None,
        )
        return TokenizedExample(sample=sample, label=label, source=index.source, epoch=index.epoch)

    def _surround(self, index: SampleIndex, packed: PackedRows, sample: DecodedExample) -> DecodedExample:
        """Put other sounds around the speech of a sample, as often as configured."""
        if sample.samples_W is None or not self.non_speech.config.non_speech_padding_probability:
            return sample
        random = self._non_speech_random(index, packed)
        self.non_speech.draw_clip(random)
        samples_W, offset_seconds = self.non_speech.surround(sample.samples_W, random)
        return dataclasses.replace(
            sample,
            samples_W=samples_W,
            duration_seconds=len(samples_W) / SAMPLING_RATE,
            offset_seconds=offset_seconds,
        )

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
        augmented: DecodedExample,
    ) -> LabelTokens:
        changes: dict[str, Any] = {
            "previous": packed.previous, "random": random,
            "speed": augmented.speed, "offset_seconds": augmented.offset_seconds,
        }  # fmt: skip
        if sample.parts:
            return labels.build_joined(sample.parts, **changes)
        return labels.build(sample.label, seconds=sample.duration_seconds, **changes)

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
