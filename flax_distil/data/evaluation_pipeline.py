"""Every row once, in order: for evaluation and pseudo-labelling. No filter applies here."""

from collections.abc import Iterator, Sequence
from typing import Literal

from flax_distil.audio import CHUNK_SECONDS
from flax_distil.core import InputError
from flax_distil.data.batches import Batch, LabelledSample, check_buckets, collate
from flax_distil.data.labels import LabelBuilder, LabelTokens, sample_random
from flax_distil.data.pipeline_config import NeedsAudio, PipelineConfig
from flax_distil.data.samples import TOO_LONG, Sample, SampleError, SampleReader
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.speech_data import SpeechData

TooLong = Literal["raise", "skip"]


class EvaluationPipeline:
    """Batches of decoded audio and references; may be walked over again.

    Each batch is what :func:`flax_distil.data.batches.collate` makes, with ``references``: the
    whole reference texts, ``""`` where there is none. The last batch is padded, ``valid_B``
    tells its real rows. With ``labels`` there are targets too, for the loss; a row whose label
    is missing or too long keeps its audio and reference but has no target that counts.

    A recording that cannot be read is skipped and recorded, not counted.

    Args:
        data: The evaluation set.
        config: Batch size and threads.
        labels: Makes targets; None leaves them out.
        indices: Rows to read, in this order; None reads all.
        needs_audio: Called for each row before its audio is decoded, from any thread.
        too_long: What a recording of more than 30 s does: end the run, or be skipped like an
            unreadable one.
        skipped: Where skipped rows are recorded.

    Raises:
        InputError: if a ``duration`` column shows a recording of more than 30 s (with
            ``too_long="raise"``), or the buckets do not hold the labels.
    """

    def __init__(
        self,
        data: SpeechData,
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
        """Rows that are evaluated but have no usable label for the loss."""
        self._config, self._labels, self._too_long = config, labels, too_long
        self._needs_audio = needs_audio or (lambda index: True)
        self._indices = [int(index) for index in (range(len(data)) if indices is None else indices)]
        self._reader = SampleReader(data)
        if too_long == "raise":
            self._check_durations(data)

    @property
    def num_samples(self) -> int:
        """Rows to read, those counted that turn out to be unreadable."""
        return len(self._indices)

    def __len__(self) -> int:
        """Return the number of batches, at most."""
        return -(-len(self._indices) // self._config.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        import grain

        if not self._indices:
            return
        samples = grain.MapDataset.source(self._indices).map(self._load)
        batches = samples.to_iter_dataset(
            grain.ReadOptions(
                num_threads=self._config.threads, prefetch_buffer_size=self._config.samples_ahead
            )
        ).batch(self._config.batch_size, drop_remainder=False, batch_fn=self._collate)
        iterator = iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))
        try:
            yield from iterator
        finally:
            iterator.close()

    def _check_durations(self, data: SpeechData) -> None:
        durations = data.durations()
        for index in self._indices:
            seconds = durations[index]
            if seconds is not None and seconds > CHUNK_SECONDS:
                raise self._long_audio(index, f"{seconds:.2f} s of audio")

    def _long_audio(self, index: int, reason: str) -> InputError:
        return InputError(
            f"sample {self._reader.sample_id(index)!r} is too long for a short-form job "
            f"({reason}; at most {CHUNK_SECONDS} s): cut it, or leave it out"
        )

    def _load(self, index: int) -> LabelledSample | None:
        try:
            sample = self._reader.read(index, load_audio=self._needs_audio(index))
        except SampleError as error:
            if error.kind == TOO_LONG and self._too_long == "raise":
                raise self._long_audio(index, error.reason.split(":")[0]) from error
            self._record(self.skipped, index, error)
            return None
        return LabelledSample(sample=sample, label=self._label(sample))

    def _label(self, sample: Sample) -> LabelTokens | None:
        if self._labels is None:
            return None
        try:
            return self._labels.build(sample.label, random=sample_random(seed=0, epoch=0, index=sample.index))
        except SampleError as error:
            self._record(self.without_loss, sample.index, error)
            return None

    def _record(self, skipped: SkippedSamples, index: int, error: SampleError) -> None:
        skipped.add(
            index=index, sample_id=self._reader.sample_id(index), kind=error.kind, reason=error.reason
        )

    def _collate(self, samples: Sequence[LabelledSample]) -> Batch:
        batch = collate(
            samples,
            batch_size=self._config.batch_size,
            pad_token=0 if self._labels is None else self._labels.pad_token,
            buckets=None if self._labels is None else self._config.label_buckets,
        )
        missing = self._config.batch_size - len(samples)
        return {**batch, "references": [item.sample.reference or "" for item in samples] + [""] * missing}
