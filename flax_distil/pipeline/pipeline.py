"""Speech recognition from Python: any input, any length, results shaped as those of transformers."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_distil.audio.voice_activity import VadOptions
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.errors import InputError
from flax_distil.decoding.options import SearchOptions
from flax_distil.model.layers import ComputeOptions
from flax_distil.parallel.compilation_cache import use_compilation_cache
from flax_distil.parallel.make_partitioner import make_partitioner, single_device
from flax_distil.parallel.mesh import MeshShape
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.inputs.audio_inputs import RETRY_SECONDS, ReadRecording
from flax_distil.pipeline.inputs.channel_reading import ChannelChoice
from flax_distil.pipeline.inputs.load_ahead import read_ahead, read_recording
from flax_distil.pipeline.scheduler import Outcome, RecordingStream, Route
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.pipeline.writers.formats import segment_documents
from flax_distil.transcription.options import OFF, Thresholds, TranscriptionOptions, clip_times
from flax_distil.transcription.results import TranscribedSegment, Transcript

Result = dict[str, Any]

_THRESHOLDS = tuple(f"{name}_threshold" for name in Thresholds._fields)

_SEARCH_OPTIONS = tuple(field.name for field in dataclasses.fields(SearchOptions))
_OPTIONS = tuple(
    field.name
    for field in dataclasses.fields(TranscriptionOptions)
    if field.name not in ("search", "return_timestamps", "word_timestamps")
)
OPTIONS = (
    *_OPTIONS, *_SEARCH_OPTIONS, "return_timestamps", "return_language", "return_language_probabilities",
    "return_segments", "batch_size", "chunk_length_s", "stride_length_s", "chunk_merging", "mode", "channel",
    "split_channels",
)  # fmt: skip
"""Names that a pipeline, and each call of it, take."""


class FlaxWhisperPipeline:
    """A Whisper checkpoint that transcribes whatever it is given::

        pipeline = FlaxWhisperPipeline("openai/whisper-large-v3", dtype="bfloat16", batch_size=16)
        pipeline("talk.mp3", return_timestamps=True)["chunks"]

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
            model: a Hugging Face or CTranslate2 folder, or a Hub id; a ``ModelSource`` tells its revision,
                subfolder, cache and token too.
            dtype: what the model computes in: float32, bfloat16 or float16.
            partitioner: the devices to use, from ``flax_distil.parallel.make_partitioner``; by default the
                batch is divided over all devices of this process.
            runner: the former name of ``partitioner``; deprecated.
            assistant_model: a student of the checkpoint that drafts tokens for it, which it checks several at
                a time, with the same result.
            num_assistant_tokens: most tokens of a draft; by default 5, on a CPU 3.
            source_retry_seconds: how long a server that does not answer is asked again.
            defaults: options of calls, see :meth:`__call__`.

        Raises:
            InputError: if there is no such checkpoint, or an option is unknown or does not fit it.
        """
        use_compilation_cache()
        self._partitioner = partitioner or runner or _all_devices()
        if self._partitioner.shard_count > 1:
            raise InputError("a pipeline runs in one process: start one on each machine")
        self._retry_seconds = source_retry_seconds
        self._defaults = _flat(defaults)
        self._model = TranscriptionModel(
            model if isinstance(model, ModelSource) else str(model),
            self._partitioner,
            options=_Call(self._defaults).options,
            compute=ComputeOptions(dtype=dtype),
            assistant=None if assistant_model is None else str(assistant_model),
            num_assistant_tokens=num_assistant_tokens,
        )

    def __call__(self, inputs: Any, **options: Any) -> Result | list[Result] | Iterator[Result]:
        """Transcribe recordings.

        Args:
            inputs: a recording, or a list or an iterator of them. A recording is a path, an address
                (``http(s)://``, ``gs://``, ``s3://``, ``hf://``), the contents of a file, an array of 16 kHz
                samples of one channel, a dictionary of "array" (or "raw") and "sampling_rate", or of "bytes"
                or "path", or a decoder as ``datasets`` gives them from its version 4 on. One without samples
                has no text.
            options: by name, or in a dictionary ``generate_kwargs``:
                ``return_timestamps`` (True for segments, "word" for words), ``return_language``,
                ``return_language_probabilities``, ``return_segments``;
                ``batch_size`` (16), ``chunk_length_s``, ``stride_length_s``, ``chunk_merging``, ``mode`` (of
                ``Route``);
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
            InputError: if an option is unknown or does not fit the checkpoint, or a single recording cannot
                be read.
        """
        call = _Call({**self._defaults, **_flat(options)})
        stream = RecordingStream(self._model, self._partitioner, call.options, call.route)
        if _is_recording(inputs):
            recording = read_recording(0, inputs, retry_seconds=self._retry_seconds, channels=call.channels)
            [outcome] = stream.transcribe([recording])
            if outcome.error is not None:
                raise outcome.error
            return call.result(outcome)
        if isinstance(inputs, Sequence):
            return list(map(call.result, self._outcomes(stream, inputs, call.channels)))
        if isinstance(inputs, Iterable):
            return map(call.result, self._outcomes(stream, inputs, call.channels))
        raise InputError(
            f"inputs are a {type(inputs).__name__}: expected a recording, or a list or an iterator of them"
        )

    def warm_up(self, **options: Any) -> float:
        """Read the weights, compile what full batches need, and return the seconds compiling took.

        Args:
            options: of the calls to come.
        """
        call = _Call({**self._defaults, **_flat(options)})
        return RecordingStream(self._model, self._partitioner, call.options, call.route).warm_up()

    def _outcomes(
        self, stream: RecordingStream, inputs: Iterable[Any], channels: ChannelChoice
    ) -> Iterator[Outcome]:
        """Yield outcomes in the order of the inputs."""
        reads: Iterable[ReadRecording | None]
        if stream.route.batch_size == 1 and not isinstance(inputs, Sequence):
            reads = (
                read_recording(number, given, retry_seconds=self._retry_seconds, channels=channels)
                for number, given in enumerate(inputs)
            )
        else:
            reads = read_ahead(enumerate(inputs), retry_seconds=self._retry_seconds, channels=channels)
        early: dict[int, Outcome] = {}
        following = 0
        for outcome in stream.transcribe(reads):
            early[outcome.name] = outcome
            while following in early:
                yield early.pop(following)
                following += 1


class _Call:
    """Options of one call, sorted out.

    Attributes:
        options: what to transcribe into, and how.
        route: in which way.
        channels: which channels are heard.
    """

    def __init__(self, given: Mapping[str, Any]):
        unknown = [name for name in given if name not in OPTIONS]
        if unknown:
            raise InputError(
                f"option {unknown[0]!r} is unknown: expected one of {', '.join(sorted(OPTIONS))}"
            )
        self._timestamps = given.get("return_timestamps")
        if self._timestamps not in (None, False, True, "word"):
            raise InputError(f"return_timestamps {self._timestamps!r} is unknown: expected True or 'word'")
        self.channels = ChannelChoice(channel=given.get("channel"), split=bool(given.get("split_channels")))
        self._language = bool(given.get("return_language"))
        self._probabilities = bool(given.get("return_language_probabilities"))
        self._full = bool(given.get("return_segments"))
        fields = {name: given[name] for name in _OPTIONS if given.get(name) is not None}
        fields |= {name: OFF for name in _THRESHOLDS if name in given and given[name] is None}
        temperature = fields.pop("temperature", None)
        if temperature is not None:
            several = isinstance(temperature, Sequence)
            fields["temperature"] = tuple(map(float, temperature if several else [temperature]))
        if "clip_timestamps" in fields:
            fields["clip_timestamps"] = clip_times(fields["clip_timestamps"])
        for name in ("prompt_ids", "suppress_tokens"):
            if name in fields:
                fields[name] = tuple(map(operator.index, np.asarray(fields[name], np.int64).reshape(-1)))
        if "vad_parameters" in fields:
            fields["vad_parameters"] = _vad_options(fields["vad_parameters"])
        self.options = TranscriptionOptions(
            **fields,
            return_timestamps=bool(self._timestamps) or self._full or self.channels.split,
            word_timestamps=self._timestamps == "word",
            search=SearchOptions(
                **{name: given[name] for name in _SEARCH_OPTIONS if given.get(name) is not None}
            ),
        )
        stride = given.get("stride_length_s")
        self.route = Route(
            mode=given.get("mode") or "auto",
            batch_size=16 if given.get("batch_size") is None else given["batch_size"],
            chunk_length_s=given.get("chunk_length_s"),
            stride_length_s=tuple(stride) if isinstance(stride, Sequence) else stride,
            chunk_merging=given.get("chunk_merging") or "timestamps",
            keep_temperature=temperature is not None,
        )
        self.route.check(self.options)

    def result(self, outcome: Outcome) -> Result:
        """Return an outcome as the user sees it."""
        transcript = outcome.transcript
        if transcript is None:
            return {"text": "", "error": str(outcome.error)}
        result: Result = {"text": transcript.text}
        if self._timestamps or self.channels.split:
            result["chunks"] = list(
                _words(transcript) if self._timestamps == "word" else _segments(transcript)
            )
        if self._full:
            result["segments"] = segment_documents(transcript.segments)
            result["duration"] = outcome.seconds
        if self._language or self._full:
            result["language"] = transcript.language
            if transcript.language_probability is not None:
                result["language_probability"] = transcript.language_probability
        if self._probabilities:
            result["language_probabilities"] = transcript.language_probabilities
        return result


@functools.cache  # always the same, so its programs are shared
def _all_devices() -> Partitioner:
    devices = jax.local_devices()
    return single_device() if len(devices) == 1 else make_partitioner("jit", MeshShape(), devices=devices)


def _segments(transcript: Transcript) -> Iterator[Result]:
    for segment in transcript.segments:
        yield {"timestamp": (segment.start, segment.end), "text": segment.text} | _channel(segment)


def _words(transcript: Transcript) -> Iterator[Result]:
    for segment in transcript.segments:
        for word in segment.words or ():
            yield {"text": word.text, "timestamp": (word.start, word.end)} | _channel(segment)


def _channel(segment: TranscribedSegment) -> Result:
    return {} if segment.channel is None else {"channel": segment.channel}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with those of ``generate_kwargs`` among them."""
    rest = dict(options)
    return {**(rest.pop("generate_kwargs", None) or {}), **rest}


def _vad_options(given: VadOptions | Mapping[str, Any]) -> VadOptions:
    if isinstance(given, VadOptions):
        return given
    names = [field.name for field in dataclasses.fields(VadOptions)]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"vad_parameters {unknown[0]!r} is unknown: expected one of {', '.join(names)}")
    return VadOptions(**given)


def _is_recording(inputs: Any) -> bool:
    return isinstance(inputs, (str, Path, bytes, bytearray, memoryview, Mapping)) or any(
        hasattr(inputs, name) for name in ("__array__", "get_all_samples")
    )
