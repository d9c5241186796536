"""Recordings with one speaker per channel: their channels are split, and their transcripts are merged."""

import dataclasses
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.transcription.results import Transcript


class ChannelName(NamedTuple):
    """The name of one channel of a recording while it is transcribed.

    Attributes:
        name: Name of the recording.
        channel: Number of the channel, counted from 0.
        channels: Number of channels of the recording.
    """

    name: Any
    channel: int
    channels: int


def plain_name(name: Any) -> Any:
    """Return the name of a recording, given its name or that of one of its channels."""
    return name.name if isinstance(name, ChannelName) else name


def split_recordings(recordings: Iterable[LoadedAudio | None]) -> Iterator[LoadedAudio | None]:
    """Yield the channels of recordings that were read by channel, and other recordings as they are."""
    for recording in recordings:
        if recording is None or not recording.channels:
            yield recording
            continue
        samples_CW = recording.samples.reshape(recording.channels, -1)
        for channel, samples_W in enumerate(samples_CW):
            name = ChannelName(recording.name, channel, recording.channels)
            yield recording._replace(name=name, samples=samples_W, channels=0)


class ChannelJoiner:
    """Puts the outcomes of the channels of a recording together when the last of them is known."""

    def __init__(self) -> None:
        self._waiting: dict[Any, dict[int, TranscriptionOutcome]] = {}

    def add(self, outcome: TranscriptionOutcome) -> TranscriptionOutcome | None:
        """Return the outcome of a recording; None while other channels of it are missing."""
        if not isinstance(outcome.name, ChannelName):
            return outcome
        name, channel, channels = outcome.name
        parts = self._waiting.setdefault(name, {})
        parts[channel] = outcome
        if len(parts) < channels:
            return None
        return _joined(name, [part for _, part in sorted(self._waiting.pop(name).items())])


def _joined(name: Any, parts: Sequence[TranscriptionOutcome]) -> TranscriptionOutcome:
    failed = next((part for part in parts if part.transcript is None), None)
    if failed is not None:
        return dataclasses.replace(failed, name=name)
    transcripts = [part.transcript for part in parts if part.transcript is not None]
    return TranscriptionOutcome(name=name, seconds=parts[0].seconds, transcript=_merged(transcripts))


def _merged(transcripts: Sequence[Transcript]) -> Transcript:
    """Return one transcript: the segments of all channels in order of time, each with its channel."""
    segments = sorted(
        (
            dataclasses.replace(segment, channel=channel)
            for channel, transcript in enumerate(transcripts)
            for segment in transcript.segments
        ),
        key=operator.attrgetter("start"),  # sorting keeps channels that begin together in order
    )
    spoken = [transcript for transcript in transcripts if transcript.text] or transcripts
    weights = [len(transcript.tokens) + 1 for transcript in spoken]
    logprobs = [weight * transcript.avg_logprob for weight, transcript in zip(weights, spoken, strict=True)]
    marked = "".join(
        f"<|{segment.start:.2f}|>{segment.text}" + ("" if segment.end is None else f"<|{segment.end:.2f}|>")
        for segment in segments
    )
    return dataclasses.replace(
        spoken[0],  # its language counts
        text=" ".join(text for segment in segments if (text := segment.text.strip())),
        text_with_timestamps=marked,
        tokens=[token for transcript in transcripts for token in transcript.tokens],
        token_logprobs=[value for transcript in transcripts for value in transcript.token_logprobs],
        avg_logprob=sum(logprobs) / sum(weights),
        no_speech_prob=min(transcript.no_speech_prob for transcript in transcripts),
        temperature=max(transcript.temperature for transcript in transcripts),
        segments=tuple(segments),
    )
