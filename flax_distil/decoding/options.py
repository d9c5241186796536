"""How tokens are chosen."""

import dataclasses

from flax_distil.core.errors import InputError

MAX_HYPOTHESES = 100
"""Most beams or samples of a row: the first timestamp has but 51 to choose from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Beam search and sampling.

    Instances are hashable, so they can be static arguments of a jitted function.

    Attributes:
        num_beams: Number of beams at temperature 0; with 1, each token is the most likely one.
        length_penalty: Rank beams and samples by their log-probability over ((5 + length) / 6) to this power.
            By default they are ranked by their log-probability over their length.
        patience: The search ends when num_beams times this many beams are finished.
        best_of: Number of samples drawn at a temperature above 0, of which the most likely one is kept.
        top_k: Draw only from this many most likely tokens. By default from all.
        top_p: Draw only from the fewest tokens whose probabilities add up to this. By default from all.

    Raises:
        InputError: If a value is out of range.

    Source: arXiv 2212.04356, section 4.5, and openai/whisper's decoding; arXiv 1609.08144 (length
    penalty), arXiv 2204.05424 (patience), arXiv 1904.09751 (top-p).
    """

    num_beams: int = 1
    length_penalty: float | None = None
    patience: float = 1.0
    best_of: int = 1
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_beams", "best_of"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_HYPOTHESES:
                raise InputError(f"{name} {value} is not between 1 and {MAX_HYPOTHESES}")
        if not 0 < self.patience < float("inf"):
            raise InputError(f"patience {self.patience:g} is not a number above 0")
        if self.num_beams == 1 and self.patience != 1:
            raise InputError(f"patience {self.patience:g} is given without beams: raise num_beams above 1")
        if not 1 <= self.waits_for <= MAX_HYPOTHESES:
            raise InputError(
                f"patience {self.patience:g} of {self.num_beams} beams waits for {self.waits_for} finished "
                f"ones: choose it so that their product is between 1 and {MAX_HYPOTHESES}"
            )
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise InputError(f"length_penalty {self.length_penalty:g} is not between 0 and 1")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k} is below 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p:g} is not above 0 and at most 1")

    @property
    def waits_for(self) -> int:
        """How many finished beams end the search of a row."""
        return round(self.num_beams * self.patience)
