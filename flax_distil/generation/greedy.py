"""Batched greedy search: prefill the prompts, then one token per row and step until all are done."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core import Array, Bool, Float, Int
from flax_distil.generation.result import SearchResult
from flax_distil.generation.rules import DecodingRules, EmittedContext, apply_rules
from flax_distil.model import Decoder, DecoderCache

FIRST_SLOTS = 128
"""A search starts with a cache of this many tokens, which short recordings never fill.

Every step reads the whole cache; the few rows that say more go on with a full one.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Search:
    """State of the loop; ``logits_BV`` are those of the next token."""

    logits_BV: Float[Array, "B V"]
    cache: DecoderCache
    offset_B: Int[Array, " B"]
    context: EmittedContext
    tokens_BT: Int[Array, "B T"]
    logprobs_BT: Float[Array, "B T"]
    done_B: Bool[Array, " B"]


def greedy_search(
    decoder: Decoder,
    states_BSD: Float[Array, "B S D"],
    prompt_BP: Int[Array, "B P"],
    prompt_length_B: Int[Array, " B"],
    *,
    rules: DecodingRules,
    max_new_tokens: int,
    limit_B: Int[Array, " B"] | None = None,
) -> SearchResult:
    """Emit the most likely allowed token of every row until all rows have ended.

    Args:
        decoder: bound to its parameters.
        states_BSD: encoder states.
        prompt_BP: decoder prompts, padded on the right; each holds one
            ``<|startoftranscript|>``.
        prompt_length_B: tokens of each prompt; rows may differ.
        rules: static.
        max_new_tokens: static; a row ends earlier where its prompt leaves less room in
            ``max_target_positions``.
        limit_B: smaller limits of single rows, known only at run time; a row of limit 0 is idle.

    Raises:
        ValueError: if the padded prompts leave no position for a token.
    """
    rows, prompt_slots = prompt_BP.shape
    positions = decoder.config.max_target_positions
    if prompt_slots >= positions:
        raise ValueError(f"{prompt_slots} prompt tokens leave none of the model's {positions} positions")
    slots = min(positions, prompt_slots + max_new_tokens)
    room_B = jnp.minimum(positions - prompt_length_B, max_new_tokens)
    limit_B = room_B if limit_B is None else jnp.minimum(limit_B, room_B)
    special, layers = rules.special, decoder.unrolled()
    few_slots = min(slots, max(FIRST_SLOTS, prompt_slots + 1))
    cache = decoder.init_cache(states_BSD, few_slots)
    hidden_BPD, cache = decoder.extend(layers, prompt_BP, cache, jnp.zeros(rows, jnp.int32))
    start_B = (prompt_BP == special.sot).argmax(axis=1)
    picked = jnp.stack([start_B, prompt_length_B - 1], axis=1)[:, :, None]
    logits_B2V = decoder.logits(jnp.take_along_axis(hidden_BPD, picked, axis=1))
    first = _Search(
        logits_BV=logits_B2V[:, 1],
        cache=cache,
        offset_B=prompt_length_B,
        context=EmittedContext.empty(rows),
        tokens_BT=jnp.full((rows, max_new_tokens), special.eot, jnp.int32),
        logprobs_BT=jnp.zeros((rows, max_new_tokens), jnp.float32),
        done_B=limit_B < 1,
    )

    def search_up_to(slots: int, search: _Search) -> _Search:
        """Emit until all rows have ended or a cache of so many slots is full."""
        return jax.lax.while_loop(
            lambda search: _goes_on(search, slots),
            functools.partial(_emit, decoder, layers, rules, limit_B),
            search,
        )

    final = search_up_to(few_slots, first)
    if slots > few_slots:
        final = search_up_to(slots, dataclasses.replace(final, cache=final.cache.with_slots(slots)))
    length_B = (final.tokens_BT != special.eot).sum(axis=1)
    return SearchResult(
        tokens_BT=final.tokens_BT,
        logprobs_BT=final.logprobs_BT,
        length_B=length_B,
        avg_logprob_B=final.logprobs_BT.sum(axis=1) / (length_B + 1),
        no_speech_prob_B=jax.nn.softmax(logits_B2V[:, 0])[:, special.no_speech],
    )


def _goes_on(search: _Search, slots: int) -> Bool[Array, ""]:
    """Say whether a row has not ended, and the cache has room for the next token of every such row."""
    furthest = jnp.where(search.done_B, -1, search.offset_B).max()
    return (furthest >= 0) & (furthest < slots)


def _emit(
    decoder: Decoder, layers: list[Any], rules: DecodingRules, limit_B: Int[Array, " B"], search: _Search
) -> _Search:
    """Take every row's most likely allowed token, and run the decoder on it."""
    end = rules.special.eot
    scores_BV = apply_rules(rules, search.logits_BV, search.context)
    best_B = scores_BV.argmax(axis=1).astype(jnp.int32)
    logprob_B = jnp.take_along_axis(jax.nn.log_softmax(scores_BV), best_B[:, None], axis=1)[:, 0]
    token_B = jnp.where(search.done_B, end, best_B)
    logprob_B = jnp.where(search.done_B, 0.0, logprob_B)
    column = search.context.count
    hidden_B1D, cache = decoder.extend(layers, token_B[:, None], search.cache, search.offset_B)
    return _Search(
        logits_BV=decoder.logits(hidden_B1D)[:, 0],
        cache=cache,
        offset_B=search.offset_B + ~search.done_B,
        context=search.context.followed_by(token_B, rules.special.timestamp_begin),
        tokens_BT=search.tokens_BT.at[:, column].set(token_B),
        logprobs_BT=search.logprobs_BT.at[:, column].set(logprob_B),
        done_B=search.done_B | (token_B == end) | (column + 1 >= limit_B),
    )
