"""From encoder states to tokens: what may be emitted, and the search for it."""

from flax_distil.generation.alignment import TokenAlignment, align_by_choices, align_tokens
from flax_distil.generation.drafting import draft_embedding
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
    "TokenAlignment",
    "align_by_choices",
    "align_tokens",
    "apply_rules",
    "draft_embedding",
    "language_probabilities",
    "search",
    "speculative_search",
]
