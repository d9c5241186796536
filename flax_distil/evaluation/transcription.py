"""The work of an evaluation: one checkpoint through all recordings, under every condition."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flax_distil.core.arrays import Float, Params
from flax_distil.core.console import is_quiet
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import (
    TOO_LONG,
    DecodedExample,
    DurationLimits,
    SampleError,
    SampleReader,
)
from flax_distil.data.skipped import SkippedSample
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.evaluation.config import CLEAN, EvalConfig, NoiseCondition
from flax_distil.evaluation.noise import NoiseMaker
from flax_distil.evaluation.output import EvaluationOutput, Key
from flax_distil.evaluation.records import (
    Prediction,
    Records,
    Session,
    StreamPosition,
    decode_record,
    encode_record,
)
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.processes import all_gather_object
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.storage.line_files import LineWriter
from flax_distil.transcription.assisted_generator import AssistedGenerator
from flax_distil.transcription.generator import EncoderCache, WhisperGenerator
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import ModeName, TranscriptionOptions
from flax_distil.transcription.recordings import RecordingTranscriber
from flax_distil.transcription.results import Transcript


def gather_records(output: EvaluationOutput, key: Key) -> Records:
    """Return the records of a key that all processes wrote; all processes must call it."""
    own = output.records(key, process=jax.process_index(), processes=jax.process_count())
    lines = all_gather_object([encode_record(record) for record in own.lines])
    return Records([decode_record(line) for part in lines for line in part])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """Rows of a data set, and the noise that is added to their recordings.

    Attributes:
        name: What reports call the data set.
        data: All rows, or consecutive ones.
        noise: Adds noise to their recordings.
        condition: The noise that is added.
        position: Where they begin in a stream; None for all rows of a table.
    """

    name: str
    data: SpeechDataset
    noise: NoiseMaker
    condition: NoiseCondition
    position: StreamPosition | None = None

    @property
    def first(self) -> int:
        """Number in the data set of the first row of ``data``."""
        return 0 if self.position is None else self.position.row

    def missing(self, records: Records) -> list[int]:
        """Return the numbers of the rows that this process is to transcribe.

        Of a table these are its share of those without a record. A part of a stream is transcribed again as a
        whole if a row is missing: in the same company, confidences are the same to their last digit.
        """
        done, index, count = records.done, jax.process_index(), jax.process_count()
        numbers = range(self.first, self.first + len(self.data))
        if self.position is None:
            return [number for number in numbers if number not in done][index::count]
        own = numbers[index::count]
        return [] if done.issuperset(own) else list(own)


class ModelEvaluation:
    """One checkpoint at work; its weights are read when the first recording needs them.

    Processes compute apart, each with the whole checkpoint on its own devices, and share the recordings.

    Args:
        config: Of the evaluation.
        partitioner: Over the devices of this process.
        output: Output folder, to which records are written.
        label: What reports call the checkpoint.
        model: The checkpoint.
        most: Maximum number of rows of a data set; None if it is not known.
        options: Options of data sets that have their own, by name; their recordings are one window each.
    """

    def __init__(
        self,
        config: EvalConfig,
        partitioner: Partitioner,
        output: EvaluationOutput,
        *,
        label: str,
        model: TranscriptionModel,
        most: int | None,
        options: Mapping[str, TranscriptionOptions] | None = None,
    ):
        self._config, self._partitioner, self._output = config, partitioner, output
        self._label, self._model, self._most = label, model, most
        self._own_options = options or {}
        self._own_transcribers: dict[str, RecordingTranscriber] = {}
        self._compile_seconds = 0.0
        self._numbers: dict[Key, int] = {}
        self._seconds: dict[Key, float] = {}
        self._counted: dict[Key, dict[str, int]] = {}

    def load(self, *, encoder: Params | None, cache: EncoderCache) -> WhisperGenerator:
        """Read the weights, compile, and return the generator, which has an encoder cache from then on.

        Args:
            encoder: See ``TranscriptionModel.load``.
            cache: See ``WhisperGenerator``.
        """
        generator = self._model.load(encoder=encoder)
        generator.encoder_cache = cache
        return self._transcriber.generator

    @property
    def batch_rows(self) -> int:
        """Number of windows that are decoded at once."""
        return self._batch_rows(self._config.transcriber_mode)

    def begin(self, name: str, condition: NoiseCondition) -> Records:
        """Begin a session, and return the records of earlier ones; all processes must call it.

        Args:
            name: What reports call the data set.
            condition: The noise that is added to its recordings.
        """
        key = (self._label, name, condition.name)
        before = gather_records(self._output, key)
        self._numbers[key] = max((session.number for session in before.sessions), default=0) + 1
        return before

    def transcribe_rows(
        self, rows: EvaluationRows, numbers: Sequence[int], *, credit: Callable[[], float] | None = None
    ) -> None:
        """Transcribe rows of this process, in the session that began last.

        Args:
            rows: The rows.
            numbers: Which of them: their numbers in the data set.
            credit: Returns the seconds since this call that count although they were saved.
        """
        if not numbers:
            return
        key = (self._label, rows.name, rows.condition.name)
        rows.noise.prepare(rows.condition)
        transcriber = self._transcriber_of(rows.name)
        compile_seconds, self._compile_seconds = self._compile_seconds, 0.0
        session = Session(
            number=self._numbers[key],
            process=jax.process_index(),
            devices=self.devices,
            batch_size=transcriber.batch_size,
            compile_seconds=compile_seconds,
        )
        before = self._seconds.get(key)
        with (
            self._output.writer(key, process=jax.process_index()) as writer,
            _progress(key, rows, numbers) as bar,
        ):
            if before is None:
                writer.write(encode_record(session))
            if rows.position is not None:
                writer.write(encode_record(rows.position))
            recordings = self._recordings(rows, numbers, writer)
            generator = transcriber.generator
            if isinstance(generator, AssistedGenerator):
                generator.reset_statistics()
            counted = self._counted.get(key, {})
            start = time.perf_counter()
            for sample, transcript, share in self._transcribed(transcriber, recordings):
                saved = 0.0 if credit is None else credit()
                seconds = self._seconds[key] = (before or 0.0) + time.perf_counter() - start + saved
                statistics = None
                if isinstance(generator, AssistedGenerator):
                    found = vars(generator.statistics)
                    statistics = {name: counted.get(name, 0) + found[name] for name in found}
                    self._counted[key] = statistics
                prediction = Prediction.of(
                    sample, transcript, session, seconds=seconds, batch_seconds=share, statistics=statistics
                )
                writer.write(encode_record(prediction))
                bar.update()

    def end_stream(self, name: str, condition: NoiseCondition, records: Records, *, rows: int) -> None:
        """Note how many rows a stream had that was read to its end; the first process does.

        Args:
            name: What reports call the data set.
            condition: The noise that was added.
            records: What :meth:`begin` returned.
            rows: Their number.
        """
        if jax.process_index() == 0 and records.stream_rows is None:
            with self._output.writer((self._label, name, condition.name), process=0) as writer:
                writer.write(encode_record(StreamPosition(row=rows, is_end=True)))

    def _transcriber_of(self, name: str) -> RecordingTranscriber:
        """Return what transcribes a data set, with its weights on the devices and its programs compiled."""
        if name not in self._own_options:
            return self._transcriber
        if name not in self._own_transcribers:
            transcriber = self._make_transcriber(
                self._batch_rows("short"), mode="short", options=self._own_options[name]
            )
            self._compile_seconds += transcriber.warm_up()
            self._own_transcribers[name] = transcriber
        return self._own_transcribers[name]

    def _transcribed(
        self,
        transcriber: RecordingTranscriber,
        recordings: Iterator[tuple[DecodedExample, Float[np.ndarray, " W"]]],
    ) -> Iterator[tuple[DecodedExample, Transcript, float | None]]:
        """Yield transcripts, with the share of the time of its batch where batches are timed one by one."""
        for sample, transcript in transcriber.transcribe_recordings(recordings):
            yield sample, transcript, None

    @functools.cached_property
    def _transcriber(self) -> RecordingTranscriber:
        transcriber = self._make_transcriber(self._batch_rows(self._config.transcriber_mode))
        self._compile_seconds = transcriber.warm_up()
        return transcriber

    def _batch_rows(self, mode: ModeName) -> int:
        """Return the number of windows to decode at once."""
        shards = self._partitioner.local_batch_shards
        per_device = self._config.batches.per_device_eval_batch_size
        if mode in ("short", "sequential") and self._most is not None:
            # No more rows than recordings, each of which is one row: no larger programs.
            per_device = min(per_device, -(-self._most // (shards * jax.process_count())))
        return shards * per_device

    def make_alone(self) -> RecordingTranscriber:
        """Return a transcriber of single recordings; every device gets a row."""
        return self._make_transcriber(self._partitioner.local_batch_shards)

    def _make_transcriber(
        self, batch_size: int, *, mode: ModeName | None = None, options: TranscriptionOptions | None = None
    ) -> RecordingTranscriber:
        """Return a transcriber, by default in the mode and under the options of the evaluation."""
        generator = self._model.load()
        if options is not None:
            cache, generator = generator.encoder_cache, self._model.generator(options)
            generator.encoder_cache = cache
        return make_transcriber(
            mode or self._config.transcriber_mode,
            generator,
            batch_size=batch_size,
            chunk_length_s=self._config.chunks.chunk_length_s,
            stride_length_s=self._config.chunks.stride_length_s,
            chunk_merging=self._config.chunks.chunk_merging,
            pad_batches=True,
        )

    @property
    def devices(self) -> str:
        """How many devices of which kind compute."""
        devices = self._partitioner.mesh.devices.flatten()
        return f"{len(devices)} x {devices[0].device_kind}"

    @property
    def _limits(self) -> DurationLimits:
        return duration_limits(self._config)

    def _recordings(
        self, rows: EvaluationRows, numbers: Sequence[int], writer: LineWriter
    ) -> Iterator[tuple[DecodedExample, Float[np.ndarray, " W"]]]:
        """Yield decoded recordings with their noise; those that cannot be read become lines."""
        threads, own = self._config.data.reading.dataloader_num_workers, [n - rows.first for n in numbers]
        heard = read_rows(
            rows.data, own, self._limits, threads=threads, hear=lambda s: rows.noise(s, rows.condition)
        )
        for sample in heard:
            numbered = dataclasses.replace(sample, index=rows.first + sample.index)
            if isinstance(numbered, SkippedSample):
                writer.write(encode_record(numbered))
            else:
                yield dataclasses.replace(numbered, samples_W=None), samples_of(numbered)


def _progress(key: Key, rows: EvaluationRows, numbers: Sequence[int]) -> "tqdm[Any]":
    """Return a progress bar of the first process, unless there is no terminal."""
    quiet = True if jax.process_index() or is_quiet() else None
    title = " ".join(key) if rows.condition != CLEAN else " ".join(key[:2])
    return tqdm(total=len(numbers), desc=title, unit=" samples", disable=quiet, leave=rows.position is None)


def read_rows(
    data: SpeechDataset,
    rows: Sequence[int],
    limits: DurationLimits,
    *,
    threads: int | None = None,
    hear: Callable[[DecodedExample], Float[np.ndarray, " W"]] | None = None,
) -> Iterator[DecodedExample | SkippedSample]:
    """Yield rows decoded in threads, in order, or why they cannot be used.

    Args:
        data: The data set.
        rows: Which.
        limits: How long they may be.
        threads: That decode; by default the machine's cores.
        hear: Called in a thread for the samples to put in place of a recording's.
    """
    import grain

    reader = SampleReader(data, limits)

    def read(row: int) -> DecodedExample | SkippedSample:
        try:
            sample = reader.read(row)
        except SampleError as error:
            return SkippedSample(
                index=row,
                sample_id=reader.sample_id(row),
                kind=error.kind,
                reason=_with_remedy(error, data, row),
            )
        return sample if hear is None else dataclasses.replace(sample, samples_W=hear(sample))

    settings = PipelineConfig(batch_size=1, num_threads=threads)
    options = grain.ReadOptions(num_threads=settings.threads, prefetch_buffer_size=2 * settings.threads)
    yield from grain.MapDataset.source(rows).map(read).to_iter_dataset(options)


def duration_limits(config: EvalConfig) -> DurationLimits:
    """Return how long recordings may be in the mode of an evaluation."""
    any_length = config.transcriber_mode != "short"
    return DurationLimits(max_seconds=math.inf) if any_length else DurationLimits()


def samples_of(sample: DecodedExample) -> Float[np.ndarray, " W"]:
    """Return the samples of a recording that :func:`read_rows` yielded."""
    assert sample.samples_W is not None
    return sample.samples_W


def _with_remedy(error: SampleError, data: SpeechDataset, row: int) -> str:
    """Say of a recording that is too long which file it is and what to do about it."""
    if error.kind != TOO_LONG:
        return error.reason
    file = data.table[row][data.audio_column]["path"] or "it"
    return f"{error.reason}; set mode to vad, chunked or sequential, or cut {file}"
