"""The options of one call of the pipeline, and its results."""

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.audio.vad_config import VadOptions
from flax_distil.core.errors import InputError
from flax_distil.decoding.options import SearchOptions
from flax_distil.pipeline.config import ChannelChoice
from flax_distil.pipeline.recording import TranscriptionOutcome
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.pipeline.writers.formats import segment_documents
from flax_distil.transcription.options import OFF, Thresholds, TranscriptionOptions, clip_times
from flax_distil.transcription.results import TranscribedSegment, Transcript

Result = dict[str, Any]
"""The result of one recording, with the fields that the options ask for."""

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


class CallOptions:
    """The options of one call by what they are about.

    Attributes:
        options: What to transcribe into, and how.
        mode: How recordings are cut into windows.
        batch_size: Maximum number of windows decoded at once. With 1, a recording is answered before the next
            one is taken.
        channels: Which channels are transcribed.
    """

    def __init__(self, *sets: Mapping[str, Any]):
        """Sort the options that a caller gave by name; see ``Pipeline.__call__``.

        Args:
            sets: Options; those of later sets replace those of earlier ones.

        Raises:
            InputError: If an option is unknown, or its value does not fit.
        """
        given: dict[str, Any] = {}
        for options in sets:
            given |= {**(options.get("generate_kwargs") or {}), **options}
        given.pop("generate_kwargs", None)
        unknown = [name for name in given if name not in OPTIONS]
        if unknown:
            raise InputError(
                f"option {unknown[0]!r} is unknown: expected one of {', '.join(sorted(OPTIONS))}"
            )
        self._timestamps = given.get("return_timestamps")
        if self._timestamps not in (None, False, True, "word"):
            raise InputError(f"return_timestamps {self._timestamps!r} is unknown: expected True or 'word'")
        self.channels = ChannelChoice(
            channel=given.get("channel"), split_channels=bool(given.get("split_channels"))
        )
        self._language = bool(given.get("return_language"))
        self._probabilities = bool(given.get("return_language_probabilities"))
        self._full = bool(given.get("return_segments"))
        self.options = self._transcription_options(given)
        stride = given.get("stride_length_s")
        self.mode = TranscribeMode(
            mode=given.get("mode") or "auto",
            chunk_length_s=given.get("chunk_length_s"),
            stride_length_s=tuple(stride) if isinstance(stride, Sequence) else stride,
            chunk_merging=given.get("chunk_merging") or "timestamps",
        )
        self.mode.check(self.options)
        self.batch_size = 16 if given.get("batch_size") is None else given["batch_size"]
        if self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size} is below 1")

    def _transcription_options(self, given: Mapping[str, Any]) -> TranscriptionOptions:
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
        return TranscriptionOptions(
            **fields,
            return_timestamps=bool(self._timestamps) or self._full or self.channels.split_channels,
            word_timestamps=self._timestamps == "word",
            search=SearchOptions(
                **{name: given[name] for name in _SEARCH_OPTIONS if given.get(name) is not None}
            ),
        )

    def result(self, outcome: TranscriptionOutcome) -> Result:
        """Return an outcome as the user sees it."""
        transcript = outcome.transcript
        if transcript is None:
            return {"text": "", "error": str(outcome.error)}
        result: Result = {"text": transcript.text}
        if self._timestamps or self.channels.split_channels:
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


def _segments(transcript: Transcript) -> Iterator[Result]:
    for segment in transcript.segments:
        yield {"timestamp": (segment.start, segment.end), "text": segment.text} | _channel(segment)


def _words(transcript: Transcript) -> Iterator[Result]:
    for segment in transcript.segments:
        for word in segment.words or ():
            yield {"text": word.text, "timestamp": (word.start, word.end)} | _channel(segment)


def _channel(segment: TranscribedSegment) -> Result:
    return {} if segment.channel is None else {"channel": segment.channel}


def _vad_options(given: VadOptions | Mapping[str, Any]) -> VadOptions:
    if isinstance(given, VadOptions):
        return given
    names = [field.name for field in dataclasses.fields(VadOptions)]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"vad_parameters {unknown[0]!r} is unknown: expected one of {', '.join(names)}")
    return VadOptions(**given)
