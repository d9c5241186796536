"""How windows are decoded of which the encoder output is on the devices, or on its way there."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.fallback import attempt_seed
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator


class EncodedWindows(NamedTuple):
    """Windows that the encoder has heard, or is about to, and how they are to be decoded.

    Attributes:
        requests: One for each window.
        languages: Their codes.
        probabilities: Probability of each language, where it was detected.
        frames: Frames of 10 ms with content in each recording, where words are looked for.
        ends: Length of each recording in seconds, where it is known: no time lies beyond.
        encoder_out: Encoder output.
    """

    requests: Sequence[DecodingRequest]
    languages: list[str]
    probabilities: list[Mapping[str, float] | None]
    frames: Sequence[int]
    ends: Sequence[float | None]
    encoder_out: EncoderOutput | None


def windows_to_decode(
    generator: WhisperGenerator,
    encoder_out: EncoderOutput,
    *,
    rows: int,
    recordings: int | None = None,
    frames: Sequence[int] | None = None,
    empty: Sequence[bool] | None = None,
    languages: Sequence[str | None] | None = None,
) -> EncodedWindows:
    """Say how windows are decoded whose encoder output is on the devices already.

    Only where the language must be detected first does this wait for the encoder.

    Args:
        generator: The checkpoint.
        encoder_out: Rows of all processes.
        rows: How many of them are this process's.
        recordings: How many of those are recordings; the others are not decoded. By default all.
        frames: Frames of 10 ms with content in each row, where words are looked for; by default all.
        empty: Rows that get no text and are not decoded; by default none.
        languages: Code of the language of each row, or None where it is to be
            detected, if the options name none.
    """
    count = rows if recordings is None else recordings
    padding = rows - count
    known = [
        *(languages or [None] * count)[:count],
        *[generator.prompts.any_language or "en"] * padding,
    ]
    found, probabilities = find_languages(generator, encoder_out, rows, known)
    prompts, options = generator.prompts, generator.options
    is_idle = [*(empty or [False] * rows)[:count], *[True] * padding]
    requests = [
        DecodingRequest(
            prompt=prompts.build(language, prompts.initial),
            limit=0 if idle else None,
            temperature=options.temperatures[0],
            seed=attempt_seed(options, 0),
        )
        for language, idle in zip(found, is_idle, strict=True)
    ]
    whole = 2 * generator.config.max_source_positions
    heard = [*(frames or [whole] * count)[:count], *[whole] * padding]
    return EncodedWindows(requests, found, probabilities, heard, [None] * rows, encoder_out)


def find_languages(
    generator: WhisperGenerator, encoder_out: EncoderOutput, rows: int, given: Sequence[str | None]
) -> tuple[list[str], list[Any]]:
    """Return the language of each row, and the probabilities of all languages where it was detected."""
    special = generator.tokenizer.special
    language = generator.options.language if special.is_multilingual else "en"
    known = [language or code for code in given]
    if all(known):
        return [code for code in known if code], [None] * rows
    found = generator.language_probabilities(encoder_out)
    likeliest = [code or max(row, key=row.__getitem__) for code, row in zip(known, found, strict=True)]
    return likeliest, [None if code else row for code, row in zip(known, found, strict=True)]
