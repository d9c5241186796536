"""Checkpoints at work on a data set; those with one encoder together: each window is encoded once for all."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

import jax
import numpy as np

from flax_distil.checkpoints.load_on_cpu import load_on_cpu
from flax_distil.core.arrays import Float
from flax_distil.data.fingerprints import weights_fingerprint
from flax_distil.evaluation.config import EvalConfig, NoiseCondition
from flax_distil.evaluation.noise import NoiseMaker
from flax_distil.evaluation.records import Records
from flax_distil.evaluation.streams import EvaluationSet, EvaluationStream, is_finished, restart_position
from flax_distil.evaluation.transcription import EvaluationRows, ModelEvaluation
from flax_distil.parallel.processes import raise_on_all_hosts
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator

MODELS_AT_ONCE = 16
"""Maximum number of checkpoints whose decoders are on the devices at the same time."""

CACHE_BYTES = 2**30
"""Maximum size of the encoder outputs that are kept."""


class SharedEncoder:
    """Encoder outputs of a block of recordings, for several checkpoints with an equal encoder.

    Each checkpoint's clock counts the time of the encoder, as if the checkpoint were alone.

    Attributes:
        credit_seconds: Seconds of the encoder that were saved, which whoever is at work adds to its clock.
    """

    def __init__(self) -> None:
        self.credit_seconds = 0.0
        self._outputs: dict[bytes, tuple[EncoderOutput, float]] = {}

    def __call__(
        self, samples_BW: Float[np.ndarray, "B W"], encode: Callable[[np.ndarray], EncoderOutput]
    ) -> EncoderOutput:
        """Return the encoder output of windows, from an earlier call if they are the same."""
        key = hashlib.blake2b(np.ascontiguousarray(samples_BW).view(np.uint8).data, digest_size=16).digest()
        if key in self._outputs:
            output, seconds = self._outputs[key]
            self.credit_seconds += seconds
            return output
        start = time.perf_counter()
        output = jax.block_until_ready(encode(samples_BW))
        self._outputs[key] = output, time.perf_counter() - start
        return output

    def forget(self) -> None:
        """Free the outputs, and begin the clock again."""
        self._outputs.clear()
        self.credit_seconds = 0.0


def group_by_encoder(config: EvalConfig, labels: Sequence[str]) -> list[list[str]]:
    """Return which checkpoints work together: those with equal encoders, in their order.

    Encoders are compared where they can be shared: in mode short, without an assistant. To compare them, the
    encoder of every checkpoint is read.
    """
    has_assistant = config.assistant.assistant_model_name_or_path is not None
    if config.mode != "short" or has_assistant or config.rules.is_leaderboard or len(labels) < 2:
        return [[label] for label in labels]
    groups: dict[str, list[list[str]]] = {}
    for label in labels:
        own = groups.setdefault(_encoder_fingerprint(config, label), [[]])
        if len(own[-1]) == MODELS_AT_ONCE:
            own.append([])
        own[-1].append(label)
    return [group for own in groups.values() for group in own]


def _encoder_fingerprint(config: EvalConfig, label: str) -> str:
    """Return a digest of the encoder of a checkpoint, in the type in which it is used."""
    dtype = "float32" if config.compute.dtype == "int8" else config.compute.dtype
    source = config.model_source(config.models[label])
    return weights_fingerprint(load_on_cpu(source, dtype=dtype, branches=["encoder"]).params["encoder"])


class EvaluationsTogether:
    """Checkpoints of one group at work; a checkpoint alone keeps no encoder outputs.

    Args:
        works: Their evaluations.
    """

    def __init__(self, works: Sequence[ModelEvaluation]):
        self._works = works
        self._encoder = SharedEncoder()

    def transcribe(
        self, name: str, data: EvaluationSet, noise: NoiseMaker, conditions: Sequence[NoiseCondition]
    ) -> None:
        """Transcribe the recordings that have no record yet; all processes must call it.

        Args:
            name: What reports call the data set.
            data: The data set.
            noise: Adds noise to its recordings.
            conditions: The noises that are added.
        """
        before = {noisy: [work.begin(name, noisy) for work in self._works] for noisy in conditions}
        if isinstance(data, EvaluationStream):
            # What goes wrong on one process is to end all.
            raise_on_all_hosts(functools.partial(self._transcribe_stream, name, data, noise, before))
            return
        for condition, records in before.items():
            rows = EvaluationRows(name=name, data=data, noise=noise, condition=condition)
            raise_on_all_hosts(functools.partial(self._transcribe_rows, rows, records))

    def _transcribe_stream(
        self,
        name: str,
        stream: EvaluationStream,
        noise: NoiseMaker,
        before: Mapping[NoiseCondition, Sequence[Records]],
    ) -> None:
        """Read a stream once, and transcribe each part of it under every condition."""
        everything = [records for part in before.values() for records in part]
        if all(is_finished(records, stream) for records in everything):
            return
        batch_rows, end = self._works[0].batch_rows * jax.process_count(), 0
        with closing(stream.parts(restart_position(everything), batch_rows=batch_rows)) as parts:
            for part in parts:
                for condition, records in before.items():
                    rows = EvaluationRows(
                        name=name, data=part.data, noise=noise, condition=condition, position=part.position
                    )
                    self._transcribe_rows(rows, records)
                end = part.end
        for condition, records in before.items():
            for work, own in zip(self._works, records, strict=True):
                work.end_stream(name, condition, own, rows=end)

    def _transcribe_rows(self, rows: EvaluationRows, before: Sequence[Records]) -> None:
        """Transcribe the rows that have no record, block by block if checkpoints share encoder outputs."""
        missing = [rows.missing(records) for records in before]
        if len(self._works) == 1:
            self._works[0].transcribe_rows(rows, missing[0])
            return
        numbers = sorted({number for part in missing for number in part})
        if not numbers:
            return
        generators = self._load()
        for block in _blocks(numbers, generators[0], self._works[0].batch_rows):
            for work, own in zip(self._works, missing, strict=True):
                self._encoder.credit_seconds = 0.0
                todo = [number for number in own if number in block]
                work.transcribe_rows(rows, todo, credit=lambda: self._encoder.credit_seconds)
            self._encoder.forget()

    def _load(self) -> list[WhisperGenerator]:
        """Read the weights of all onto the devices, with one encoder, unless they are there."""
        encoder, generators = None, []
        for work in self._works:
            generators.append(work.load(encoder=encoder, cache=self._encoder))
            encoder = generators[0].params["encoder"]
        self._encoder.forget()
        return generators


def _blocks(rows: Sequence[int], generator: WhisperGenerator, batch_rows: int) -> Iterator[set[int]]:
    """Yield rows in blocks of whole batches whose encoder outputs are kept together."""
    config, dtype = generator.config, generator.shape.compute.dtype
    row_bytes = config.max_source_positions * config.d_model * np.dtype(dtype).itemsize
    size = max(1, CACHE_BYTES // (row_bytes * batch_rows)) * batch_rows
    for start in range(0, len(rows), size):
        yield set(rows[start : start + size])
