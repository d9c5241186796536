"""Speech recognition from Python: any input, any length, results shaped as those of transformers."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.errors import InputError
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.compilation_cache import use_compilation_cache
from flax_distil.parallel.config import MeshShape
from flax_distil.parallel.make_partitioner import make_partitioner, single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.call_options import CallOptions, Result
from flax_distil.pipeline.config import RETRY_SECONDS
from flax_distil.pipeline.inputs.load_ahead import read_ahead, read_recording
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.pipeline.scheduler import Scheduler
from flax_distil.pipeline.transcription_model import TranscriptionModel


class Pipeline:
    """A Whisper checkpoint that transcribes whatever it is given.

    Examples:
        >>> pipeline = Pipeline("openai/whisper-large-v3", dtype="bfloat16", batch_size=16)
        >>> pipeline("talk.mp3", return_timestamps=True)["chunks"]

    Weights are read once, when they are first needed. Programs are compiled once per size of batch, and kept
    on disk for the next process.
    """

    def __init__(
        self,
        model: str | Path | ModelSource,
        *,
        dtype: str = "float32",
        partitioner: Partitioner | None = None,
        runner: Partitioner | None = None,
        assistant_model: str | Path | None = None,
        num_assistant_tokens: int | None = None,
        source_retry_seconds: float = RETRY_SECONDS,
        **defaults: Any,
    ):
        """Read the small files of a checkpoint.

        Args:
            model: A Hugging Face or CTranslate2 folder, or a Hub id; a ``ModelSource`` tells its revision,
                subfolder, cache and token too.
            dtype: Element type of the computations: float32, bfloat16, float16, or int8 for the products of
                the layers.
            partitioner: The devices to use, from ``flax_distil.parallel.make_partitioner``; by default the
                batch is divided over all devices of this process.
            runner: The former name of ``partitioner``; deprecated.
            assistant_model: A student of the checkpoint that drafts tokens, several of which the checkpoint
                checks at a time, with the same result.
            num_assistant_tokens: Maximum number of tokens of a draft; by default 5, and 3 on a CPU.
            source_retry_seconds: How long a server that does not answer is asked again.
            defaults: Options of calls, see ``__call__``.

        Raises:
            InputError: If there is no such checkpoint, or an option is unknown or does not fit it.
        """
        use_compilation_cache()
        self._partitioner = partitioner or runner or _all_devices()
        if self._partitioner.shard_count > 1:
            raise InputError("a pipeline runs in one process: start one on each machine")
        self._retry_seconds = source_retry_seconds
        self._defaults = defaults
        self._model = TranscriptionModel(
            model if isinstance(model, ModelSource) else str(model),
            self._partitioner,
            options=CallOptions(defaults).options,
            compute=ComputeOptions(dtype=dtype),
            assistant=None if assistant_model is None else str(assistant_model),
            num_assistant_tokens=num_assistant_tokens,
        )

    def __call__(self, inputs: Any, **options: Any) -> Result | list[Result] | Iterator[Result]:
        """Transcribe recordings.

        Args:
            inputs: A recording, or a list or an iterator of them. A recording is a path, an address
                (``http(s)://``, ``gs://``, ``s3://``, ``hf://``), the contents of a file, an array of 16 kHz
                samples of one channel, a dictionary of "array" (or "raw") and "sampling_rate", or of "bytes"
                or "path", or a decoder as ``datasets`` gives them from its version 4 on. One without samples
                has no text.
            options: Options by name, or in a dictionary ``generate_kwargs``:
                ``return_timestamps`` (True for segments, "word" for words), ``return_language``,
                ``return_language_probabilities``, ``return_segments``;
                ``batch_size`` (16), and ``mode``, ``chunk_length_s``, ``stride_length_s`` and
                ``chunk_merging`` of ``TranscribeMode``;
                ``channel`` (a number: that channel alone, by default the mean of all), ``split_channels``;
                ``num_beams`` and the rest of ``SearchOptions``; ``language``, ``task``, ``temperature`` (one,
                or several to try in turn), ``prompt``, ``prompt_ids``, ``max_new_tokens``, the thresholds
                ("off", or a None that is given, tests nothing) and the rest of ``TranscriptionOptions``,
                among them ``vad`` and ``vad_parameters``, a dictionary as faster-whisper takes it.

        Returns:
            A result of a recording, a list of them of a list. Of an iterator another one, which takes
            recordings as there is room for them and yields results in order.

            A result is a dictionary: ``text``; ``chunks`` of ``text`` and ``timestamp`` (start, end) in
            seconds if ``return_timestamps``; ``language`` (its code) if ``return_language``, and
            ``language_probability`` where it was detected; ``language_probabilities`` (of every code, None
            where it was not) if ``return_language_probabilities``; ``segments`` with the fields of
            openai/whisper, ``language`` and ``duration`` if ``return_segments``, as
            ``flax_distil.write_transcript`` takes them. A recording of a list or an iterator that cannot be
            read has ``text`` "" and ``error``, a sentence.

            With ``split_channels`` each channel of a recording is transcribed by itself, as for calls with a
            speaker on each: ``chunks`` of all come in order of time, each with its ``channel``.

            An iterator is asked for recordings in a thread, and may wait for the results of those it gave:
            where the next one does not come, those that are there are transcribed. With a ``batch_size`` of 1
            it is asked for the next one when the last one was answered, in the caller's thread.

        Raises:
            InputError: If an option is unknown or does not fit the checkpoint, or a single recording cannot
                be read.
        """
        call = CallOptions(self._defaults, options)
        scheduler = self._scheduler(call)
        if _is_recording(inputs):
            recording = read_recording(0, inputs, retry_seconds=self._retry_seconds, channels=call.channels)
            [outcome] = scheduler.transcribe([recording])
            if outcome.error is not None:
                raise outcome.error
            return call.result(outcome)
        if isinstance(inputs, Sequence):
            return list(map(call.result, self._outcomes(scheduler, inputs, call)))
        if isinstance(inputs, Iterable):
            return map(call.result, self._outcomes(scheduler, inputs, call))
        raise InputError(
            f"inputs are a {type(inputs).__name__}: expected a recording, or a list or an iterator of them"
        )

    def warm_up(self, **options: Any) -> float:
        """Read the weights, compile what full batches need, and return the seconds compiling took.

        Args:
            options: Options of the calls to come.
        """
        return self._scheduler(CallOptions(self._defaults, options)).warm_up()

    def _scheduler(self, call: CallOptions) -> Scheduler:
        return Scheduler(self._model, self._partitioner, call.options, call.mode, call.batch_size)

    def _outcomes(
        self, scheduler: Scheduler, inputs: Iterable[Any], call: CallOptions
    ) -> Iterator[TranscriptionOutcome]:
        """Yield outcomes in the order of the inputs."""
        reads: Iterable[LoadedAudio | None]
        if call.batch_size == 1 and not isinstance(inputs, Sequence):
            reads = (
                read_recording(number, given, retry_seconds=self._retry_seconds, channels=call.channels)
                for number, given in enumerate(inputs)
            )
        else:
            reads = read_ahead(enumerate(inputs), retry_seconds=self._retry_seconds, channels=call.channels)
        early: dict[int, TranscriptionOutcome] = {}
        following = 0
        for outcome in scheduler.transcribe(reads):
            early[outcome.name] = outcome
            while following in early:
                yield early.pop(following)
                following += 1


@functools.cache  # always the same, so its programs are shared
def _all_devices() -> Partitioner:
    devices = jax.local_devices()
    return single_device() if len(devices) == 1 else make_partitioner("jit", MeshShape(), devices=devices)


def _is_recording(inputs: Any) -> bool:
    return isinstance(inputs, (str, Path, bytes, bytearray, memoryview, Mapping)) or any(
        hasattr(inputs, name) for name in ("__array__", "get_all_samples")
    )
