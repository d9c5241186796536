"""Find the largest batch that fits with few compilations."""

import dataclasses
from collections.abc import Callable

_FINE, _COARSE = 1, 8
"""Steps of the search: one below 16, and eight above, because the tiles of a TPU have 8 rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of compiling one batch.

    Attributes:
        batch: Samples per device.
        fits: Whether it fits into the HBM.
        bytes: HBM that it takes, or would take at least; None if that is unknown.
    """

    batch: int
    fits: bool
    bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The largest batch that fits, and how it was found.

    Attributes:
        batch: Samples per device; 0 if none fits.
        is_compiled: Whether this batch was compiled and fits. Otherwise it is calculated from the trials
            under the assumption that memory grows linearly with the batch, which is only roughly true.
        trials: Compiled batches, in the order of compilation.
    """

    batch: int
    is_compiled: bool
    trials: tuple[Trial, ...]

    @property
    def surely(self) -> int:
        """The largest batch that was compiled and fits; 0 if there is none."""
        return max((trial.batch for trial in self.trials if trial.fits), default=0)


def find_largest_batch(
    first: Trial,
    *,
    limit: float,
    fixed: int,
    compile_batch: Callable[[int], Trial],
    may_compile: Callable[[], bool],
) -> LargestBatch:
    """Search for the largest batch that fits, by compiling batches that are predicted to fit just barely.

    Args:
        first: Trial of the batch that the user asked for.
        limit: Available HBM in bytes.
        fixed: Bytes that do not depend on the batch (weights and state). They are the second point of a line
            where there is only one trial.
        compile_batch: Function that compiles another batch.
        may_compile: Function that says whether there is time for one more compilation.
    """
    trials = [first]
    while True:
        guess = _predicted(trials, limit, fixed)
        tried = guess in {trial.batch for trial in trials}
        if guess == 0 or tried or not may_compile():
            return LargestBatch(batch=guess, is_compiled=tried, trials=tuple(trials))
        trials.append(compile_batch(guess))


def _predicted(trials: list[Trial], limit: float, fixed: int) -> int:
    """Return the batch to try next; one that was tried already if there is no better one."""
    fitting = sorted((t.batch, t.bytes or 0) for t in trials if t.fits)
    failing = min(((t.batch, t.bytes) for t in trials if not t.fits), default=None)
    if not fitting:
        assert failing is not None
        return _rounded(failing[0] // 2)
    batch, used = fitting[-1]
    other, other_used = fitting[-2] if len(fitting) > 1 else (0, fixed)
    if failing is not None and failing[1] is not None:  # the answer lies between the two
        other, other_used = failing[0], failing[1]
    slope = max((used - other_used) / (batch - other), 1.0)
    guess = _rounded(batch + int((limit - used) / slope))
    if failing is not None and guess >= failing[0]:
        guess = _rounded((batch + failing[0]) // 2)
    return max(guess, batch)


def _rounded(batch: int) -> int:
    step = _FINE if batch < 2 * _COARSE else _COARSE
    return batch // step * step
