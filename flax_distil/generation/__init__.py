"""From encoder states to tokens: what may be emitted, and the search for it."""

from flax_distil.generation.greedy import GreedyResult, greedy_search
from flax_distil.generation.language import language_probabilities
from flax_distil.generation.rules import DecodingRules, EmittedContext, apply_rules

__all__ = [
    "DecodingRules",
    "EmittedContext",
    "GreedyResult",
    "apply_rules",
    "greedy_search",
    "language_probabilities",
]
