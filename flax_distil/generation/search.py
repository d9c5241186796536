"""What every search takes and returns, and the choice of one."""

import dataclasses

from flax_distil.core import Array, Float, InputError, Int
from flax_distil.generation.greedy import greedy_search
from flax_distil.generation.result import SearchResult
from flax_distil.generation.rules import DecodingRules
from flax_distil.model import Decoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How tokens are chosen; hashable, so a static argument of a jitted search.

    Attributes:
        num_beams: beams of rows at temperature 0; 1 is greedy search.
        length_penalty: beams are ranked by their log-probability over their length; a number ranks them by
            ``((5 + length) / 6) ** length_penalty`` instead.
        patience: ``round(num_beams * patience)`` finished beams are waited for.
        top_k: rows at a temperature draw from this many likeliest tokens; None from all.
        top_p: … and from the fewest tokens whose probabilities add to this; None from all.

    Raises:
        InputError: if a value is out of range.

    Source: arXiv 2212.04356, section 4.5, and openai/whisper's decoding; arXiv 1609.08144 (length
    penalty), arXiv 2204.05424 (patience), arXiv 1904.09751 (top-p).
    """

    num_beams: int = 1
    length_penalty: float | None = None
    patience: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise InputError(f"num_beams {self.num_beams} is below 1")
        if not self.patience > 0:
            raise InputError(f"patience {self.patience:g} is not above 0")
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise InputError(f"length_penalty {self.length_penalty:g} is not between 0 and 1")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k} is below 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p:g} is not above 0 and at most 1")


def search(
    decoder: Decoder,
    states_BSD: Float[Array, "B S D"],
    prompt_BP: Int[Array, "B P"],
    prompt_length_B: Int[Array, " B"],
    *,
    rules: DecodingRules,
    options: SearchOptions,
    max_new_tokens: int,
    limit_B: Int[Array, " B"] | None = None,
    temperature_B: Float[Array, " B"] | None = None,
    seed_B: Int[Array, " B"] | None = None,
) -> SearchResult:
    """Emit tokens of every row until all rows have ended; a row never depends on its neighbours.

    Args:
        decoder: bound to its parameters.
        states_BSD: encoder states.
        prompt_BP: decoder prompts, padded on the right; each holds one
            ``<|startoftranscript|>``.
        prompt_length_B: tokens of each prompt; rows may differ.
        rules: static.
        options: static.
        max_new_tokens: static; a row ends earlier where its prompt leaves less room in
            ``max_target_positions``.
        limit_B: smaller limits of single rows, known only at run time; a row of limit 0 is idle.
        temperature_B: draw from the distribution at this temperature; rows at 0 take the likeliest token.
            With None all do, and beams are searched if asked for.
        seed_B: what a row's draws depend on, besides its own tokens; with ``temperature_B``.
    """
    del temperature_B, seed_B, options  # TODO
    return greedy_search(
        decoder, states_BSD, prompt_BP, prompt_length_B,
        rules=rules, max_new_tokens=max_new_tokens, limit_B=limit_B,
    )  # fmt: skip
