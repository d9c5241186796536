"""What a generator is asked of each window of a batch, and what it answers."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

from flax_distil.decoding.types import GenerateOutput

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingRequest:
    """How one window of a batch is decoded.

    Attributes:
        prompt: The whole decoder prompt; see ``Prompts.build``.
        limit: Maximum number of tokens, if it is below that of the generator; 0 leaves the row idle.
        temperature: 0 takes the most likely tokens, or searches with beams.
        seed: Random seed, used at a temperature above 0.
    """

    prompt: tuple[int, ...]
    limit: int | None = None
    temperature: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingResult:
    """What was decoded of one window.

    Attributes:
        tokens: Emitted ids, without prompt and end-of-text; timestamps and a forced beginning are included.
        token_logprobs: Natural logarithm of each token's probability, 0 for a forced beginning. The last one
            is that of end-of-text, where it was reached.
        avg_logprob: Their sum over the number of tokens plus one.
        no_speech_prob: Probability that nothing is spoken, from 0 to 1.
        temperature: Temperature of the request.
    """

    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def reached_limit(self) -> bool:
        """Whether the window ends at its limit of tokens, not with the end of its text."""
        return bool(self.tokens) and len(self.token_logprobs) == len(self.tokens)


class PendingBatch(NamedTuple):
    """A batch that the devices may still be working on; see ``WhisperGenerator.collect``.

    Attributes:
        requests: One for each row of this process; None for idle rows.
        parts: Results of all rows, and which rows each of them counts for.
    """

    requests: tuple[DecodingRequest | None, ...]
    parts: tuple[tuple[GenerateOutput, frozenset[int]], ...]


@dataclasses.dataclass(frozen=True)
class RowSteps:
    """How many steps the rows of a decoder took.

    Attributes:
        ran: Number of rows times steps.
        used: How many of them found a token, or a draft, of a window that had not ended.
    """

    ran: int = 0
    used: int = 0

    def __add__(self, other: "RowSteps") -> "RowSteps":
        return RowSteps(self.ran + other.ran, self.used + other.used)

    @property
    def idle(self) -> float:
        """The share of steps that were of no use, from 0 to 1."""
        return 1 - self.used / self.ran if self.ran else 0.0


class LimitWarning:
    """Warns once of windows that end at their limit and are not decoded further."""

    def __init__(self) -> None:
        self._given = False

    def check(
        self, requests: Sequence[DecodingRequest | None], results: Sequence[DecodingResult | None]
    ) -> None:
        """Warn if a window ends at its limit, unless only a single token was asked for."""
        for request, result in zip(requests, results, strict=True):
            if request is None or result is None or request.limit == 1 or not result.reached_limit:
                continue
            if not self._given:
                self._given = True
                log.warning(
                    "a window ends at its limit of %d tokens: what is said behind it is missing, and there "
                    "may be more such windows; raise max_new_tokens (--generation_max_length), or use mode "
                    "sequential, which goes on behind the last timestamp",
                    len(result.tokens),
                )
            return
