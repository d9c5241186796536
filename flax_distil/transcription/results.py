"""Transcripts, and the segments and words that they consist of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import TIMESTAMP_STEP_SECONDS, Segment, split_segments
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decoding_request import DecodingResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """A word and its times.

    Attributes:
        text: With the space before it and the punctuation around it.
        start: Seconds from the beginning of the recording.
        end: Seconds from the beginning of the recording.
        probability: Mean of its tokens' probabilities, from 0 to 1.
    """

    text: str
    start: float
    end: float
    probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedWord(Word):
    """A word as it was found in a window: punctuation is separate, and times are those of the window.

    Attributes:
        tokens: Its ids.
    """

    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedSegment:
    """A stretch of a recording between two timestamps.

    Attributes:
        start: Seconds from the beginning of the recording.
        end: Seconds from the beginning of the recording; None if the text runs beyond the last timestamp of a
            window.
        text: Without special tokens, with the space it begins with.
        tokens: Ids of text.
        avg_logprob: That of the window it came from.
        no_speech_prob: That of the window it came from.
        temperature: That of the window it came from.
        compression_ratio: That of the text of the window it came from; see
            ``flax_distil.metrics.hallucination.compression_ratio``.
        seek: Where that window began, in frames of 10 ms from the beginning of the recording.
        emitted_tokens: Ids as they were decoded, timestamps included; empty where chunks were merged.
        kept_tokens: The ids that the segment adds to ``Transcript.tokens``; empty where a recording is one
            window.
        kept_logprobs: The log-probability of each of them.
        words: The times of its words; None where they were not asked for.
        channel: Channel of the recording, counted from 0, where channels are transcribed apart.
    """

    start: float
    end: float | None
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float = 0.0
    seek: int = 0
    emitted_tokens: tuple[int, ...] = ()
    kept_tokens: tuple[int, ...] = ()
    kept_logprobs: tuple[float, ...] = ()
    words: tuple[Word, ...] | None = None
    channel: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcript:
    """One recording's transcription.

    Attributes:
        text: Without special tokens, stripped.
        text_with_timestamps: With ``<|0.00|>`` marks, where they were asked for.
        tokens: Emitted ids, without prompt and end-of-text; timestamps are included.
        token_logprobs: Natural logarithm of each token's probability. The last one is that of end-of-text,
            where it was reached.
        avg_logprob: Their sum over the number of tokens plus one.
        no_speech_prob: Probability that nothing is spoken, from 0 to 1.
        language: Code of the language given or detected; "en" for English-only models.
        language_probabilities: Probability of each language, where it was detected.
        temperature: Temperature at which the tokens were found.
        segments: The segments between timestamps, where those were asked for.
    """

    text: str
    text_with_timestamps: str | None
    tokens: list[int]
    token_logprobs: list[float]
    avg_logprob: float
    no_speech_prob: float
    language: str
    language_probabilities: Mapping[str, float] | None = None
    temperature: float = 0.0
    segments: tuple[TranscribedSegment, ...] = ()

    @property
    def language_probability(self) -> float | None:
        """Probability of the language, from 0 to 1; None where it was not detected."""
        return None if self.language_probabilities is None else self.language_probabilities[self.language]


def without_text(transcript: Transcript) -> Transcript:
    """Return the transcript of a recording without samples, for which a model may still have found text."""
    return dataclasses.replace(
        transcript,
        text="",
        text_with_timestamps=None if transcript.text_with_timestamps is None else "",
        tokens=[],
        token_logprobs=[],
        avg_logprob=0.0,
        no_speech_prob=1.0,
        segments=(),
    )


def segments_transcript(
    segments: Sequence[TranscribedSegment], *, ends_of_text: int, **rest: Any
) -> Transcript:
    """Return the transcript of a recording that was decoded in several windows.

    Args:
        segments: The segments in order, with their kept tokens.
        ends_of_text: How many ends of text count in the average log-probability.
        rest: The other fields.
    """
    logprobs = [logprob for segment in segments for logprob in segment.kept_logprobs]
    count = len(logprobs) + ends_of_text
    return Transcript(
        text="".join(segment.text for segment in segments).strip(),
        text_with_timestamps="".join(
            f"<|{segment.start:.2f}|>{segment.text}<|{segment.end:.2f}|>" for segment in segments
        ),
        tokens=[token for segment in segments for token in segment.kept_tokens],
        token_logprobs=logprobs,
        avg_logprob=sum(logprobs) / count if count else 0.0,
        segments=tuple(segments),
        **rest,
    )


def window_transcript(
    result: DecodingResult,
    tokenizer: WhisperTokenizer,
    *,
    language: str,
    language_probabilities: Mapping[str, float] | None = None,
    with_timestamps: bool,
    end: float | None = None,
) -> Transcript:
    """Return the transcript of a recording that is one window.

    Args:
        result: What was decoded.
        tokenizer: Tokenizer of the checkpoint.
        language: Code of the language.
        language_probabilities: Probability of each language, where it was detected.
        with_timestamps: Cut the text into segments.
        end: Seconds to the end of the recording: no timestamp in the text is later. ``tokens`` stay as they
            were decoded.
    """
    segments = split_segments(result.tokens, tokenizer.special) if with_timestamps else []
    text = tokenizer.decode(result.tokens).strip()
    return Transcript(
        text=text,
        text_with_timestamps=tokenizer.decode(
            _limit_timestamps(result.tokens, tokenizer.special, end), with_timestamps=True
        )
        if with_timestamps
        else None,
        tokens=list(result.tokens),
        token_logprobs=list(result.token_logprobs),
        avg_logprob=result.avg_logprob,
        no_speech_prob=result.no_speech_prob,
        language=language,
        language_probabilities=language_probabilities,
        temperature=result.temperature,
        segments=tuple(
            TranscribedSegment(
                start=segment.start or 0.0,
                end=segment.end,
                text=tokenizer.decode(segment.tokens),
                tokens=segment.tokens,
                avg_logprob=result.avg_logprob,
                no_speech_prob=result.no_speech_prob,
                temperature=result.temperature,
                compression_ratio=compression_ratio(text),
                emitted_tokens=_emitted(segment, tokenizer.special),
            )
            for segment in segments
        ),
    )


def _emitted(segment: Segment, special: SpecialTokens) -> tuple[int, ...]:
    start, end = (
        () if time is None else (special.timestamp_begin + round(time / TIMESTAMP_STEP_SECONDS),)
        for time in (segment.start, segment.end)
    )
    return (*start, *segment.tokens, *end)


def _limit_timestamps(tokens: Sequence[int], special: SpecialTokens, end: float | None) -> Sequence[int]:
    """Return tokens with all timestamps limited to a time."""
    if end is None:
        return tokens
    last = special.timestamp_begin + int(end / TIMESTAMP_STEP_SECONDS + 1e-6)
    return [min(token, last) if special.is_timestamp(token) else token for token in tokens]
