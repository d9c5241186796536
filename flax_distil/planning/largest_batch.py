"""The largest batch that fits, from few compilations."""

import dataclasses
from collections.abc import Callable

_FINE, _COARSE = 1, 8
"""Batches are sought one by one below 16, from there on in multiples of eight: a TPU's tiles have 8 rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A batch that was compiled.

    Attributes:
        batch: samples per device.
        bytes: HBM it takes; None if the compiler found no room for it.
    """

    batch: int
    bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The answer, and how it was found.

    Attributes:
        batch: samples per device; 0 if none fits.
        is_compiled: whether this very batch was compiled and fits; otherwise it is calculated from
            the trials, taking memory to grow linearly with the batch.
        trials: in the order of compilation.
    """

    batch: int
    is_compiled: bool
    trials: tuple[Trial, ...]


def find_largest_batch(
    first: Trial,
    *,
    limit: float,
    fixed: int,
    compile_batch: Callable[[int], Trial],
    may_compile: Callable[[], bool],
) -> LargestBatch:
    """Search for the largest batch, compiling where memory is predicted to be just enough.

    Args:
        first: a trial that was made anyway.
        limit: HBM there is.
        fixed: bytes that no batch changes (weights and state). One trial alone is extrapolated as if
            everything else grew with the batch, which is careful: some of it does not.
        compile_batch: compiles another batch.
        may_compile: whether there is time for one more.
    """
    trials = [first]
    while True:
        guess = _predicted(trials, limit, fixed)
        tried = guess in {trial.batch for trial in trials}
        if guess == 0 or tried or not may_compile():
            return LargestBatch(batch=guess, is_compiled=tried, trials=tuple(trials))
        trials.append(compile_batch(guess))


def _predicted(trials: list[Trial], limit: float, fixed: int) -> int:
    """Return the batch to try next: one that was tried already if there is no better one."""
    fitting = sorted((t.batch, t.bytes) for t in trials if t.bytes is not None and t.bytes <= limit)
    too_large = min((t.batch for t in trials if t.bytes is None or t.bytes > limit), default=None)
    if not fitting:
        assert too_large is not None
        return _rounded(too_large // 2)
    batch, used = fitting[-1]
    before, before_used = fitting[-2] if len(fitting) > 1 else (0, fixed)
    slope = max((used - before_used) / (batch - before), 1.0)
    guess = _rounded(batch + int((limit - used) / slope))
    if too_large is not None and guess >= too_large:
        guess = _rounded((batch + too_large) // 2)
    return max(guess, batch)


def _rounded(batch: int) -> int:
    step = _FINE if batch < 2 * _COARSE else _COARSE
    return batch // step * step
