"""Latency: recordings transcribed alone, by all models in turns, with the encoder's time apart."""

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import jax

from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DecodedExample
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.output import EvaluationOutput
from flax_distil.evaluation.records import LatencySample, encode_record
from flax_distil.evaluation.streams import EvaluationSet
from flax_distil.evaluation.transcription import ModelEvaluation, duration_limits, read_rows, samples_of
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.generator import WhisperGenerator

LATENCY = "latency"
"""Stands for a condition in the key of recordings that are transcribed alone."""


def measure_latency(
    config: EvalConfig,
    partitioner: Partitioner,
    output: EvaluationOutput,
    models: Mapping[str, TranscriptionModel],
    name: str,
    data: EvaluationSet,
) -> None:
    """Transcribe some recordings one at a time, on the first process, where that was not done.

    All models transcribe a recording before the next one is taken, so that a slow minute of the machine is
    one of all of them; therefore the weights of all models are held at once. Every device gets a row, as the
    programs are laid over all, but only one recording is there.

    Args:
        config: Of the evaluation.
        partitioner: Over the devices of this process.
        output: Output folder, to which records are written.
        models: The checkpoints by what reports call them.
        name: What reports call the data set.
        data: The data set.
    """
    if not config.latency_samples or jax.process_index():
        return
    alone = {
        label: _ModelAlone(ModelEvaluation(config, partitioner, output, label=label, model=model, most=1))
        for label, model in models.items()
        if not output.records((label, name, LATENCY)).latency
    }
    found: dict[str, list[LatencySample]] = {label: [] for label in alone}
    for sample in _first_twice(data, config) if alone else ():
        for label, model_alone in alone.items():
            found[label].append(model_alone.transcribe(sample))
    for label, samples in found.items():
        with output.writer((label, name, LATENCY), process=0) as writer:
            writer.write(*map(encode_record, samples[1:]))


def _first_twice(data: EvaluationSet, config: EvalConfig) -> Iterator[DecodedExample]:
    """Yield as many recordings as are asked for, behind one that does not count."""
    limits, parts = duration_limits(config), _tables(data)
    with closing(parts):
        read = (row for part in parts for row in read_rows(part, range(len(part)), limits))
        usable = (row for row in read if isinstance(row, DecodedExample))
        for number, sample in enumerate(itertools.islice(usable, config.latency_samples)):
            if number == 0:
                yield sample
            yield sample


def _tables(data: EvaluationSet) -> Generator[SpeechDataset]:
    """Yield the rows of a data set: of a stream in parts, of which no more are read than are used."""
    if isinstance(data, SpeechDataset):
        yield data
        return
    with closing(data.parts(batch_rows=1)) as parts:
        for part in parts:
            yield part.data


class _ModelAlone:
    """A checkpoint that transcribes one recording at a time, with its programs compiled."""

    def __init__(self, work: ModelEvaluation):
        self._devices, self._transcriber = work.devices, work.make_alone()
        self._transcriber.warm_up()
        self._encoder = _EncoderClock(self._transcriber.generator)

    def transcribe(self, sample: DecodedExample) -> LatencySample:
        """Transcribe a recording and note what it took."""
        start, self._encoder.seconds = time.perf_counter(), 0.0
        ((_, transcript),) = self._transcriber.transcribe_recordings([(sample.index, samples_of(sample))])
        return LatencySample(
            id=sample.sample_id,
            duration=sample.duration_seconds,
            seconds=time.perf_counter() - start,
            encoder_seconds=self._encoder.seconds,
            tokens=len(transcript.tokens),
            devices=self._devices,
        )


class _EncoderClock:
    """Adds up what log-mel and encoder of a generator take, which is then waited for at every call."""

    def __init__(self, generator: WhisperGenerator):
        self.seconds = 0.0
        for name in ("encode_samples", "encode_features"):
            setattr(generator, name, self._timed(getattr(generator, name)))

    def _timed(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            encoder_out = jax.block_until_ready(encode(*arguments))
            self.seconds += time.perf_counter() - start
            return encoder_out

        return timed
