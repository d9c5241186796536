"""From encoder states to tokens: what may be emitted, and the search for it."""

from flax_distil.generation.language import language_probabilities
from flax_distil.generation.options import SearchOptions
from flax_distil.generation.result import SearchResult
from flax_distil.generation.rules import DecodingRules, EmittedContext, apply_rules
from flax_distil.generation.search import search
from flax_distil.generation.speculative import SpeculativeResult, speculative_search

__all__ = [
    "DecodingRules",
    "EmittedContext",
    "SearchOptions",
    "SearchResult",
    "SpeculativeResult",
    "apply_rules",
    "language_probabilities",
    "search",
    "speculative_search",
]
