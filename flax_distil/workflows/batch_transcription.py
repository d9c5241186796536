"""Every row of a data set through a checkpoint, in batches over all local devices."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flax_distil.core import InputError
from flax_distil.data import EvaluationPipeline, PipelineConfig, SkippedSamples, SpeechData
from flax_distil.metrics import Throughput
from flax_distil.model import ComputeOptions
from flax_distil.parallel import batch_spec, data_mesh
from flax_distil.transcription import ShortFormTranscriber, Transcript, TranscriptionOptions
from flax_distil.weights import load_checkpoint
from flax_distil.workflows.distil_models import read_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedSet:
    """What transcribing a data set gives.

    Attributes:
        rows: row numbers that were transcribed, ascending.
        ids: their names.
        references: their references, "" where there is none.
        durations: their seconds.
        transcripts: one per row.
        throughput: compile time apart.
        skipped: rows that could not be read, or are too long.
    """

    rows: list[int]
    ids: list[str]
    references: list[str]
    durations: list[float]
    transcripts: list[Transcript]
    throughput: Throughput
    skipped: SkippedSamples


class BatchTranscriber:
    """A checkpoint loaded onto every local device, ready for whole data sets."""

    def __init__(
        self,
        model_name_or_path: str,
        *,
        options: TranscriptionOptions,
        dtype: str,
        per_device_batch_size: int,
        num_workers: int | None = None,
    ):
        """Check the options against the checkpoint, then load it.

        Raises:
            InputError: if the checkpoint cannot be read or the options do not fit it.
        """
        compute = ComputeOptions(dtype=dtype)
        described = load_checkpoint(model_name_or_path, config_only=True)
        self.tokenizer, self.settings = read_tokenizer(described.files)
        special = self.tokenizer.special
        self.tokenizer.prompt(
            options.language or ("en" if special.is_multilingual else None), options.task, False
        )
        mesh = data_mesh()
        everywhere = NamedSharding(mesh, PartitionSpec())
        checkpoint = load_checkpoint(
            model_name_or_path, dtype=jnp.dtype(dtype), sharding=lambda path: everywhere
        )
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(checkpoint.params))
        self.batch_size = per_device_batch_size * mesh.size
        self.compile_seconds = 0.0
        self._num_workers = num_workers
        self._transcriber = ShortFormTranscriber(
            checkpoint.config,
            checkpoint.params,
            self.tokenizer,
            self.settings,
            options=options,
            compute=compute,
            batch_sharding=NamedSharding(mesh, batch_spec("samples_BW")),
        )

    def warm_up(self) -> None:
        """Compile, and note the seconds in ``compile_seconds``."""
        if not self.compile_seconds:
            self.compile_seconds = self._transcriber.warm_up(self.batch_size)

    def transcribe(self, data: SpeechData) -> TranscribedSet:
        """Transcribe every readable row; the next batch is dispatched before one is collected."""
        self.warm_up()
        pipeline = EvaluationPipeline(
            data,
            PipelineConfig(batch_size=self.batch_size, num_threads=self._num_workers),
            too_long="skip",
        )
        found: list[tuple[int, str, str, float, Transcript]] = []
        start = time.perf_counter()
        waiting: tuple[dict[str, Any], Any] | None = None
        for batch in pipeline:
            dispatched = batch, self._transcriber.dispatch(batch["samples_BW"])
            if waiting is not None:
                found += self._collect(*waiting)
            waiting = dispatched
        if waiting is not None:
            found += self._collect(*waiting)
        seconds = time.perf_counter() - start
        if not found:
            raise InputError(
                f"no recording of data set {data.name!r} can be transcribed: {pipeline.skipped.report()}"
            )
        rows, ids, references, durations, transcripts = (list(column) for column in zip(*found, strict=True))
        throughput = Throughput(
            audio_seconds=sum(durations),
            compute_seconds=seconds,
            compile_seconds=self.compile_seconds,
            tokens=sum(len(transcript.tokens) for transcript in transcripts),
            samples=len(rows),
        )
        return TranscribedSet(
            rows=rows,
            ids=ids,
            references=references,
            durations=durations,
            transcripts=transcripts,
            throughput=throughput,
            skipped=pipeline.skipped,
        )

    def _collect(self, batch: dict[str, Any], handle: Any) -> list[tuple[int, str, str, float, Transcript]]:
        transcripts = self._transcriber.collect(handle)
        return [
            (
                int(batch["index_B"][row]),
                batch["ids"][row],
                batch["references"][row],
                float(batch["duration_B"][row]),
                transcripts[row],
            )
            for row in np.flatnonzero(batch["valid_B"])
        ]
