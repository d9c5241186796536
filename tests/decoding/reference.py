"""What may be said next, worked out from the whole history of one row in NumPy."""

from collections.abc import Sequence

import numpy as np

from flax_distil.decoding.logits_processors import LogitsProcessors


def place_of(history: Sequence[int], timestamp_begin: int) -> str:
    """Return where the next token falls: between segments, at the start of one, or inside."""
    place = "between"
    for token in history:
        at_timestamp = "start" if place == "between" else "between"
        place = at_timestamp if token >= timestamp_begin else "inside"
    return place


def permitted(processors: LogitsProcessors, history: Sequence[int], vocabulary: int) -> np.ndarray:
    """Return True for every token that suppression and the order of timestamps allow."""
    special, token_V = processors.special, np.arange(vocabulary)
    allowed_V = ~np.isin(token_V, processors.suppress_tokens)
    if not history:
        allowed_V &= ~np.isin(token_V, processors.begin_suppress_tokens)
    if not processors.return_timestamps:
        return allowed_V
    allowed_V &= token_V != special.no_timestamps
    is_timestamp_V = token_V >= special.timestamp_begin
    if not history:
        latest = processors.max_initial_timestamp_index
        in_time_V = token_V <= (vocabulary if latest is None else special.timestamp_begin + latest)
        return allowed_V & is_timestamp_V & in_time_V
    last = max(token for token in history if token >= special.timestamp_begin)
    match place_of(history, special.timestamp_begin):
        case "start":
            return allowed_V & ~is_timestamp_V
        case "inside":
            return allowed_V & (~is_timestamp_V | (token_V > last))
        case _:
            return allowed_V & ((token_V >= special.eot) & ~is_timestamp_V | (token_V >= last))


def ruled(processors: LogitsProcessors, logits_V: np.ndarray, history: Sequence[int]) -> np.ndarray:
    """Return the logits in float64, minus infinity where a token may not come next."""
    logits_V = np.where(permitted(processors, history, len(logits_V)), logits_V.astype(np.float64), -np.inf)
    begin = processors.special.timestamp_begin
    if processors.return_timestamps and np.exp(logits_V[begin:]).sum() > np.exp(logits_V[:begin]).max():
        logits_V[:begin] = -np.inf
    return logits_V


def log_softmax(logits_V: np.ndarray) -> np.ndarray:
    return logits_V - np.logaddexp.reduce(logits_V)
