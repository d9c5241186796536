"""Whether a window's transcript is to be trusted, silence, or tried again at a higher temperature."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flax_distil.core import Bool, Float
from flax_distil.metrics import compression_ratio, token_compression_ratio
from flax_distil.parallel import gather_objects
from flax_distil.text import WhisperTokenizer
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.window_decoder import States, WindowDecoder, WindowRequest, WindowResult

_NO_SOUND = 1e-7
"""Magnitude of samples up to which their features are at the floor of 1e-10."""


def is_without_sound(
    samples_BW: Float[np.ndarray, "B W"], options: TranscriptionOptions
) -> Bool[np.ndarray, " B"]:
    """Say which windows are digital silence, if silence is to be left out at all.

    They are not decoded: of silence a model says "you", and is not unsure of it.
    """
    if options.no_speech_threshold is None:
        return np.zeros(len(samples_BW), bool)
    return np.abs(samples_BW).max(axis=1) <= _NO_SOUND


def is_silence(result: WindowResult, options: TranscriptionOptions) -> bool:
    """Say whether nothing is spoken: likely silent, and the text unlikely.

    Source: RECIPE 6.
    """
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob < options.logprob_threshold


def may_fail(options: TranscriptionOptions) -> bool:
    """Say whether a window can be tried again: there is a threshold, and another temperature."""
    thresholds = (
        options.logprob_threshold,
        options.compression_ratio_threshold,
        options.text_compression_ratio_threshold,
    )
    return len(options.temperature) > 1 and any(limit is not None for limit in thresholds)


def failed(result: WindowResult, options: TranscriptionOptions, tokenizer: WhisperTokenizer) -> bool:
    """Say whether a transcript loops or is unlikely, and the window no silence.

    Source: RECIPE 6.
    """
    if options.logprob_threshold is not None and is_silence(result, options):
        return False
    if options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold:
        return True
    limit = options.compression_ratio_threshold
    if limit is not None and _token_compression_ratio(result, tokenizer) > limit:
        return True
    limit = options.text_compression_ratio_threshold
    return limit is not None and compression_ratio(tokenizer.decode(result.tokens).strip()) > limit


def decode_again(
    decoder: WindowDecoder,
    states: States,
    requests: Sequence[WindowRequest | None],
    results: list[WindowResult | None],
    *,
    seed: Callable[[int, int], int],
) -> list[WindowResult | None]:
    """Decode windows of a batch that failed again, all of them together, at one temperature after the other.

    Args:
        decoder: of the checkpoint.
        states: of the batch.
        requests: of the first attempt, of every row.
        results: of the first attempt.
        seed: of a row's draws, given the row and the number of the attempt.

    Returns:
        The results, the last attempt at each window standing.
    """
    options = decoder.options
    for attempt, temperature in enumerate(options.temperature[1:], start=1):
        failures = [result is not None and failed(result, options, decoder.tokenizer) for result in results]
        if not _any_process(decoder, any(failures)):
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
        retried = decoder.collect(decoder.dispatch(states, again))
        results = [
            new if has_failed else old
            for old, new, has_failed in zip(results, retried, failures, strict=True)
        ]
    return results


def _any_process(decoder: WindowDecoder, value: bool) -> bool:
    """Say whether it holds for any of the processes that share the devices: they decode together."""
    return any(gather_objects(value)) if decoder.runner.shard_count > 1 else value


def attempt_seed(options: TranscriptionOptions, *place: int) -> int:
    """Return the seed of a window's draws.

    Args:
        options: ``seed``.
        place: what the window can be told by wherever it lies in a batch: the number of the attempt,
            and of the window in its recording.
    """
    return int(np.random.SeedSequence(options.seed, spawn_key=place).generate_state(1)[0] >> 1)


def _token_compression_ratio(result: WindowResult, tokenizer: WhisperTokenizer) -> float:
    """Measure the ids with end-of-text where it was reached, as transformers does."""
    special = tokenizer.special
    ended = len(result.token_logprobs) > len(result.tokens)
    ids = (*result.tokens, special.eot) if ended else result.tokens
    return token_compression_ratio(ids, vocab_size=special.vocab_size)
