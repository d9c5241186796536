"""Whether the transcript of a window is trusted, is silence, or is decoded again at a higher temperature."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flax_distil.core.arrays import Bool, Float
from flax_distil.metrics.hallucination import compression_ratio, token_compression_ratio
from flax_distil.parallel.processes import all_gather_object
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decoding_request import DecodingRequest, DecodingResult
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions

_NO_SOUND = 1e-7
"""Magnitude of samples up to which their features are at the floor of 1e-10."""


def is_without_sound(
    samples_BW: Float[np.ndarray, "B W"], options: TranscriptionOptions
) -> Bool[np.ndarray, " B"]:
    """Say which windows are digital silence; none if there is no threshold for silence.

    They are not decoded, because models transcribe silence as "you" with a high probability.
    """
    if options.thresholds.no_speech is None:
        return np.zeros(len(samples_BW), bool)
    return np.abs(samples_BW).max(axis=1) <= _NO_SOUND


def is_silence(result: DecodingResult, options: TranscriptionOptions) -> bool:
    """Say whether nothing is spoken: silence is likely, and the text is unlikely.

    Source: ``transcribe`` of openai/whisper.
    """
    thresholds = options.thresholds
    if thresholds.no_speech is None or result.no_speech_prob <= thresholds.no_speech:
        return False
    return thresholds.logprob is None or result.avg_logprob < thresholds.logprob


def fallback_enabled(options: TranscriptionOptions) -> bool:
    """Say whether windows can be decoded again: there is a threshold, and another temperature."""
    thresholds = options.thresholds._replace(no_speech=None)
    return len(options.temperatures) > 1 and any(limit is not None for limit in thresholds)


def needs_fallback(
    result: DecodingResult, options: TranscriptionOptions, tokenizer: WhisperTokenizer
) -> bool:
    """Say whether a transcript repeats itself or is unlikely, and the window is not silence.

    Source: ``decode_with_fallback`` in ``transcribe`` of openai/whisper.
    """
    least = options.thresholds.logprob
    if least is not None and is_silence(result, options):
        return False
    if least is not None and result.avg_logprob < least:
        return True
    return _loops(result, options, tokenizer)


def best_attempt(
    attempts: Sequence[DecodingResult], options: TranscriptionOptions, tokenizer: WhisperTokenizer
) -> DecodingResult:
    """Return the most likely of several attempts at a window, all of which failed.

    Attempts that pass the thresholds of compression come before those that do not.

    Source: ``generate_with_fallback`` of faster-whisper.
    """
    straight = [attempt for attempt in attempts if not _loops(attempt, options, tokenizer)]
    return max(straight or attempts, key=lambda attempt: attempt.avg_logprob)


def _loops(result: DecodingResult, options: TranscriptionOptions, tokenizer: WhisperTokenizer) -> bool:
    """Say whether a transcript compresses too well."""
    most = options.thresholds.token_compression_ratio
    if most is not None and _token_compression_ratio(result, tokenizer) > most:
        return True
    most = options.thresholds.compression_ratio
    return most is not None and compression_ratio(tokenizer.decode(result.tokens).strip()) > most


def decode_with_fallback(
    generator: WhisperGenerator,
    encoder_out: EncoderOutput,
    requests: Sequence[DecodingRequest | None],
    results: list[DecodingResult | None],
    *,
    seed: Callable[[int, int], int],
) -> list[DecodingResult | None]:
    """Decode the failed windows of a batch again, all together, at one temperature after the other.

    Args:
        generator: The checkpoint.
        encoder_out: Encoder output of the batch.
        requests: Requests of the first attempt, one for every row.
        results: Results of the first attempt.
        seed: Returns the random seed of a row, given the row and the number of the attempt.

    Returns:
        The first attempt at each window that did not fail, or else the best one; see :func:`best_attempt`.
    """
    options, tokenizer = generator.options, generator.tokenizer
    attempts: list[list[DecodingResult]] = [[] if result is None else [result] for result in results]
    for attempt, temperature in enumerate(options.temperatures[1:], start=1):
        failures = [bool(tried) and needs_fallback(tried[-1], options, tokenizer) for tried in attempts]
        if not _any_process(generator, any(failures)):
            break
        again = [
            request
            and dataclasses.replace(
                request,
                temperature=temperature,
                seed=seed(row, attempt),
                limit=request.limit if has_failed else 0,  # an idle row
            )
            for row, (request, has_failed) in enumerate(zip(requests, failures, strict=True))
        ]
        retried = generator.collect(generator.dispatch(encoder_out, again))
        for tried, new, has_failed in zip(attempts, retried, failures, strict=True):
            if has_failed and new is not None:
                tried.append(new)
    return [choose_attempt(tried, options, tokenizer) for tried in attempts]


def choose_attempt(
    attempts: Sequence[DecodingResult], options: TranscriptionOptions, tokenizer: WhisperTokenizer
) -> DecodingResult | None:
    """Return which attempt at a window counts; None for an idle row."""
    if len(attempts) > 1 and needs_fallback(attempts[-1], options, tokenizer):
        return best_attempt(attempts, options, tokenizer)
    return attempts[-1] if attempts else None


def _any_process(generator: WhisperGenerator, value: bool) -> bool:
    """Say whether a value is true in any of the processes that share the devices and decode together."""
    return any(all_gather_object(value)) if generator.partitioner.shard_count > 1 else value


def attempt_seed(options: TranscriptionOptions, *place: int) -> int:
    """Return the random seed of an attempt at a window.

    Args:
        options: ``seed``.
        place: Numbers that identify the attempt wherever its row is in a batch: the number of the attempt,
            and of the window in its recording.
    """
    return int(np.random.SeedSequence(options.seed, spawn_key=place).generate_state(1)[0] >> 1)


def _token_compression_ratio(result: DecodingResult, tokenizer: WhisperTokenizer) -> float:
    """Measure the ids, with end-of-text where it was reached, as transformers does."""
    special = tokenizer.special
    ended = len(result.token_logprobs) > len(result.tokens)
    ids = (*result.tokens, special.eot) if ended else result.tokens
    return token_compression_ratio(ids, vocab_size=special.vocab_size)
