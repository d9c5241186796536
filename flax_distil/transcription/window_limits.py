"""Windows whose text was cut at their limit of tokens."""

import logging
from collections.abc import Sequence

from flax_distil.transcription.decoding_request import DecodingRequest, DecodingResult

log = logging.getLogger(__name__)


def reached_limit(result: DecodingResult) -> bool:
    """Say whether a window ends at its limit of tokens, not with the end of its text."""
    return bool(result.tokens) and len(result.token_logprobs) == len(result.tokens)


class LimitWarning:
    """Warns once of windows that end at their limit and are not decoded further."""

    def __init__(self) -> None:
        self._given = False

    def check(
        self, requests: Sequence[DecodingRequest | None], results: Sequence[DecodingResult | None]
    ) -> None:
        """Warn if a window ends at its limit, unless only a single token was asked for."""
        for request, result in zip(requests, results, strict=True):
            if request is None or result is None or request.limit == 1 or not reached_limit(result):
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
