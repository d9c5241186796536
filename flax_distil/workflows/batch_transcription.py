"""Every recording of a data set through a checkpoint, in batches over the devices of all processes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from flax_distil.core import Float
from flax_distil.parallel import Runner
from flax_distil.transcription import DispatchedBatch, ShortFormTranscriber, Transcript
from flax_distil.workflows.transcription_config import TranscriptionConfig
from flax_distil.workflows.transcription_model import TranscriptionModel

T = TypeVar("T")


class BatchTranscriber:
    """A checkpoint for whole data sets, on the devices of all processes.

    Its weights are read when they are first needed: make it before the data are opened, and
    whatever does not fit is known before anything large is read.

    Attributes:
        is_multilingual: whether prompts name a language.
        normalise: how transcripts are compared with references.
    """

    def __init__(self, config: TranscriptionConfig, runner: Runner):
        """Read the small files of the checkpoint.

        Raises:
            InputError: if there is no such checkpoint, or the options do not fit it.
        """
        self._config, self._runner = config, runner
        self._model = TranscriptionModel(
            config.model_name_or_path,
            runner,
            options=config.options,
            compute=config.compute,
            assistant=config.assistant_model_name_or_path,
            num_assistant_tokens=config.num_assistant_tokens,
        )
        self.is_multilingual = self._model.is_multilingual
        self.normalise = self._model.normalise
        self._compiled: set[int] = set()
        self._loaded: ShortFormTranscriber | None = None

    @property
    def parameters(self) -> int:
        """Numbers in the weights; 0 before :meth:`load`."""
        return self._model.parameters

    def load(self) -> ShortFormTranscriber:
        """Read the weights onto the devices, unless they are there, and return the transcriber.

        Raises:
            InputError: if tensors are missing, unexpected or misshapen.
        """
        if self._loaded is None:
            self._loaded = ShortFormTranscriber(self._model.load())
        return self._loaded

    def fingerprint(self) -> str:
        """Return a digest of the weights, which are read if they were not."""
        return self._model.fingerprint()

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size, unless that was done, and return the seconds it took."""
        if batch_size in self._compiled:
            return 0.0
        self._compiled.add(batch_size)
        return self.load().warm_up(batch_size)

    def batch_size(self, samples: int | None = None) -> int:
        """Return the rows of this process's batches: no more than ``samples`` need, if they are known."""
        per_device = self._config.per_device_eval_batch_size
        if samples is not None:
            per_device = min(per_device, -(-samples // self._runner.batch_shards))
        return self._runner.local_batch_shards * per_device


def transcribe_batches(
    transcriber: ShortFormTranscriber, batches: Iterable[Mapping[str, Any]]
) -> Iterator[list[tuple[int, str, str, float, Transcript]]]:
    """Yield ``(row, id, reference, seconds, transcript)`` of each batch, padding left out."""
    sent = ((batch, batch["samples_BW"], int(batch["valid_B"].sum())) for batch in batches)
    for batch, transcripts in transcribe_in_turn(transcriber, sent):
        yield [
            (
                int(batch["index_B"][row]),
                batch["ids"][row],
                batch["references"][row],
                float(batch["duration_B"][row]),
                transcript,
            )
            for row, transcript in enumerate(transcripts)
        ]


def transcribe_in_turn(
    transcriber: ShortFormTranscriber, batches: Iterable[tuple[T, Float[np.ndarray, "B W"] | None, int]]
) -> Iterator[tuple[T, list[Transcript]]]:
    """Yield the transcripts of each batch, beside whatever came with it.

    The next batch is read and sent before the last one is waited for.

    Args:
        transcriber: of the checkpoint.
        batches: what comes with a batch; 16 kHz windows of 30 s, None to send nothing; how many of them
            are recordings, the others behind them being padding.
    """

    def collected(given: T, sent: DispatchedBatch | None, rows: int) -> tuple[T, list[Transcript]]:
        return given, [] if sent is None else transcriber.collect(sent)[:rows]

    waiting: tuple[T, DispatchedBatch | None, int] | None = None
    for given, samples_BW, rows in batches:
        if samples_BW is not None:
            samples_BW[rows:] = samples_BW[0]  # in silence a model may talk to its limit
        dispatched = given, None if samples_BW is None else transcriber.dispatch(samples_BW), rows
        if waiting is not None:
            yield collected(*waiting)
        waiting = dispatched
    if waiting is not None:
        yield collected(*waiting)
