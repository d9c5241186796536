"""Make batches of an evaluation set, which have every row once, in order, without any filter."""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Literal

from flax_distil.core.errors import InputError
from flax_distil.core.prefetch import prefetch, prefetch_map
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import (
    TOO_LONG,
    DecodedExample,
    DurationLimits,
    SampleError,
    SampleReader,
    decode_row,
)
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.labels import LabelBuilder, LabelTokens, sample_random
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.training.batches import Batch, TokenizedExample, check_buckets, collate, smallest_bucket
from flax_distil.data.training.pipeline_config import NeedsAudio, PipelineConfig

TooLong = Literal["raise", "skip"]


class EvaluationPipeline:
    """An iterable over batches of decoded audio and references, which can be iterated several times.

    :func:`flax_distil.data.training.batches.collate` makes the batches, which have ``references``: the whole
    reference texts, ``""`` where there is none. The last batch is padded; ``valid_B`` marks its real rows.
    With ``labels`` there are targets for the loss. A row whose label is missing or too long keeps its audio
    and reference, but its targets do not count.

    A recording that cannot be read is skipped and recorded.

    With several shards, each reads every ``shard_count``-th row, and all have the same number of batches with
    the same shapes, which programs over all processes need. A shard without further rows has batches of
    padding.

    Every process reads a stream to its end and decodes its own rows. The number of rows is only known after
    that, and ``len`` then describes the last pass. Labels of a stream with several shards have one length,
    the bucket of ``max_label_length``.

    Args:
        data: The evaluation set.
        config: Batch size and threads.
        labels: Builder of the targets; None leaves them out.
        indices: Numbers of the rows of a table to read, in this order; None reads all rows.
        needs_audio: Function that any thread calls for each row of a table before its audio is decoded.
        too_long: Whether a recording that is longer than the window (30 s by default) raises an error, or is
            skipped like an unreadable one.
        skipped: Collector of skipped rows.

    Raises:
        InputError: If a ``duration`` column shows a recording of more than 30 s (with
            ``too_long="raise"``), or the buckets do not hold the labels.
    """

    def __init__(
        self,
        data: SpeechDataset | IterableSpeechDataset,
        config: PipelineConfig,
        *,
        labels: LabelBuilder | None = None,
        indices: Sequence[int] | None = None,
        needs_audio: NeedsAudio | None = None,
        too_long: TooLong = "raise",
        skipped: SkippedSamples | None = None,
    ):
        if labels is not None:
            check_buckets(config.label_buckets, longest=labels.max_label_length)
        self.skipped = SkippedSamples() if skipped is None else skipped
        self.without_loss = SkippedSamples()
        """Rows that are evaluated, but have no usable label for the loss."""
        self._config, self._labels, self._too_long = config, labels, too_long
        self._needs_audio = needs_audio or (lambda index: True)
        self._stream = data if isinstance(data, IterableSpeechDataset) else None
        self._indices: list[int] = []
        self._largest_shard = 0
        self._limits = DurationLimits(max_seconds=config.window_seconds)
        if isinstance(data, IterableSpeechDataset):
            self._buckets = None if labels is None else self._stream_buckets(labels)
            return
        rows = [int(index) for index in (range(len(data)) if indices is None else indices)]
        self._indices = rows[config.shard_index :: config.shard_count]
        self._largest_shard = len(rows[:: config.shard_count])
        self._buckets = None if labels is None else config.buckets_for(data, labels, rows)
        self._reader = SampleReader(data, self._limits, policy=config.policy)
        if too_long == "raise":
            self._check_durations(data, rows)

    def __len__(self) -> int:
        """Return the maximum number of batches; with several shards, the exact number."""
        return -(-self._largest_shard // self._config.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        given = 0
        with closing(prefetch(self._batches(), ahead=1)) as batches:
            for batch in batches:
                given += 1
                yield batch
        if self._config.shard_count > 1:
            yield from (self._collate([]) for _ in range(given, len(self)))

    def _batches(self) -> Generator[Batch]:
        size, group = self._config.batch_size, list[TokenizedExample]()
        with (
            closing(self._own_rows()) as rows,
            closing(
                prefetch_map(self._load, rows, threads=self._config.threads, ahead=self._config.samples_ahead)
            ) as examples,
        ):
            for example in examples:
                group += [] if example is None else [example]
                if len(group) == size:
                    yield self._collate(group)
                    group = []
        if group:
            yield self._collate(group)

    def _stream_buckets(self, labels: LabelBuilder) -> tuple[int, ...]:
        buckets = self._config.label_buckets
        return (
            buckets if self._config.shard_count == 1 else (smallest_bucket(labels.max_label_length, buckets),)
        )

    def _own_rows(self) -> Generator[int | Example]:
        """Yield the row numbers of a table, or the rows of a stream, that this process reads."""
        if self._stream is None:
            yield from self._indices
            return
        shards, number = self._config.shard_count, 0
        for shard in range(len(self._stream.shards)):
            with closing(self._stream.blocks(shard)) as blocks:
                for data, _ in blocks:
                    for index in range(len(data)):
                        if number % shards == self._config.shard_index:
                            yield dataclasses.replace(data.row(index), index=number)
                        number += 1
        self._largest_shard = -(-number // shards)

    def _check_durations(self, data: SpeechDataset, rows: Sequence[int]) -> None:
        """Check the rows of all shards, so that an error is raised in all processes."""
        durations = data.durations()
        for index in rows:
            seconds = durations[index]
            if seconds is not None and seconds > self._config.window_seconds:
                raise self._long_audio(self._reader.sample_id(index), f"{seconds:.2f} s of audio")

    def _long_audio(self, sample_id: str, reason: str) -> InputError:
        return InputError(
            f"sample {sample_id!r} is too long for a short-form job "
            f"({reason}; at most {self._config.window_seconds:g} s): cut it, or leave it out"
        )

    def _load(self, row: int | Example) -> TokenizedExample | None:
        try:
            if isinstance(row, Example):
                sample = decode_row(row, self._limits, policy=self._config.policy)
            else:
                sample = self._reader.read(row, load_audio=self._needs_audio(row))
        except SampleError as error:
            if isinstance(row, Example):
                self._refuse(row.index, row.sample_id, error)
            else:
                self._refuse(row, self._reader.sample_id(row), error)
            return None
        return TokenizedExample(sample=sample, label=self._label(sample))

    def _label(self, sample: DecodedExample) -> LabelTokens | None:
        if self._labels is None:
            return None
        try:
            random = sample_random(seed=0, epoch=0, sample_id=sample.sample_id)
            return self._labels.build(sample.label, random=random, seconds=sample.duration_seconds)
        except SampleError as error:
            self._record(self.without_loss, sample.index, sample.sample_id, error)
            return None

    def _refuse(self, index: int, sample_id: str, error: SampleError) -> None:
        """Record a row that cannot be evaluated, or raise an error if ``too_long`` asks for it."""
        if error.kind == TOO_LONG and self._too_long == "raise":
            raise self._long_audio(sample_id, error.reason.split(":")[0]) from error
        self._record(self.skipped, index, sample_id, error)

    @staticmethod
    def _record(skipped: SkippedSamples, index: int, sample_id: str, error: SampleError) -> None:
        skipped.add(index=index, sample_id=sample_id, kind=error.kind, reason=error.reason)

    def _collate(self, samples: Sequence[TokenizedExample]) -> Batch:
        batch = collate(
            samples,
            batch_size=self._config.batch_size,
            pad_token=0 if self._labels is None else self._labels.pad_token,
            buckets=self._buckets,
            always_audio=self._config.shard_count > 1,
            window_samples=self._config.window_samples,
        )
        missing = self._config.batch_size - len(samples)
        references = [item.sample.reference or "" for item in samples] + [""] * missing
        return dataclasses.replace(batch, references=references)
