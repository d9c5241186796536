"""How many tokens of a draft the teacher accepts, and what it says in place of the first that it does not."""

import dataclasses

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Bool, Float, Int
from flax_distil.decoding.drafting import ACCEPT, CORRECT, Draft, pick
from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.decoding.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class Emitted:
    """What the teacher makes of a draft.

    Attributes:
        found_BJ: The accepted tokens with the teacher's own token behind; then nothing of meaning.
        logprob_BJ: Their log-probabilities.
        accepted_B: How many tokens of the draft were accepted.
        histories: What the logits processors know before each token, and after the last one.
    """

    found_BJ: Int[Array, "B J"]
    logprob_BJ: Float[Array, "B J"]
    accepted_B: Int[Array, " B"]
    histories: list[TokenHistory]


def verify(
    draft: Draft,
    logits_BJV: Float[Array, "B J V"],
    histories: list[TokenHistory],
    *,
    processors: LogitsProcessors,
    sampling: SamplingParams | None,
) -> Emitted:
    """Return what the teacher makes of a draft.

    Args:
        draft: The draft.
        logits_BJV: The teacher's logits for each token of it, and for the one behind.
        histories: What the logits processors know before each token, and after the last one.
        processors: Which tokens may be emitted.
        sampling: How tokens are sampled; None takes the most likely ones.
    """
    flat = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:]), *histories
    )
    flat_logits = process_logits(processors, logits_BJV.reshape(-1, logits_BJV.shape[2]), flat)
    logits_BJV = flat_logits.reshape(logits_BJV.shape)
    if sampling is None:
        found_BJ, accepted_B = accept_most_likely(logits_BJV, draft)
    else:
        count_BJ = jnp.stack([history.count for history in histories], axis=1)
        found_BJ, accepted_B = accept_sampled(logits_BJV, draft, sampling, count_BJ)
    logprob_BJ = jnp.take_along_axis(logits_BJV, found_BJ[:, :, None], axis=2)[:, :, 0]
    logprob_BJ -= jax.nn.logsumexp(logits_BJV, axis=2)
    return Emitted(found_BJ, logprob_BJ, accepted_B, histories)


def accept_most_likely(
    logits_BJV: Float[Array, "B J V"], draft: Draft
) -> tuple[Int[Array, "B J"], Int[Array, " B"]]:
    """Return the teacher's most likely tokens, and how many drafted tokens are the same."""
    best_BJ = logits_BJV.argmax(axis=2).astype(jnp.int32)
    return best_BJ, count_leading(draft.tokens_BK == best_BJ[:, :-1])


def accept_sampled(
    logits_BJV: Float[Array, "B J V"], draft: Draft, sampling: SamplingParams, count_BJ: Int[Array, "B J"]
) -> tuple[Int[Array, "B J"], Int[Array, " B"]]:
    """Return the accepted tokens, each row with the teacher's own token behind, and how many were accepted.

    Args:
        logits_BJV: The teacher's logits for each token of the draft, and for the one behind.
        draft: The draft.
        sampling: How tokens are sampled.
        count_BJ: Number of emitted tokens before each of them.

    Source: arXiv 2211.17192, algorithm 1.
    """
    assert draft.log_q_BKV is not None
    log_p_BJV = jax.vmap(sampling.log_probabilities, in_axes=1, out_axes=1)(logits_BJV)

    def of_drafts(log_BJV: Array) -> Array:
        drafts_BK1 = jnp.maximum(draft.tokens_BK, 0)[:, :, None]
        return jnp.take_along_axis(log_BJV[:, : drafts_BK1.shape[1]], drafts_BK1, axis=2)[:, :, 0]

    def coin(count_B: Array) -> Array:
        return sampling.log_uniform(count_B, ACCEPT)

    log_ratio_BK = of_drafts(log_p_BJV) - of_drafts(draft.log_q_BKV)
    log_ratio_BK = jnp.where(draft.tokens_BK >= 0, log_ratio_BK, -jnp.inf)
    coin_BK = jax.vmap(coin, in_axes=1, out_axes=1)(count_BJ[:, :-1])
    accepted_B = count_leading(coin_BK < log_ratio_BK)
    p_BV = jnp.exp(pick(log_p_BJV, accepted_B))
    # Behind a draft that was accepted as a whole nothing was proposed, so q is 0.
    q_BJV = jnp.pad(jnp.exp(draft.log_q_BKV), [(0, 0), (0, 1), (0, 0)])
    rest_BV = jnp.maximum(p_BV - pick(q_BJV, accepted_B), 0.0)
    rest_BV = jnp.where(rest_BV.sum(axis=1, keepdims=True) > 0, rest_BV, p_BV)
    own_B = sampling.sample(jnp.log(rest_BV), pick(count_BJ, accepted_B), CORRECT)
    drafts_BJ = jnp.pad(draft.tokens_BK, [(0, 0), (0, 1)])
    is_accepted_BJ = jnp.arange(drafts_BJ.shape[1]) < accepted_B[:, None]
    return jnp.where(is_accepted_BJ, drafts_BJ, own_B[:, None]), accepted_B


def count_leading(is_so_BK: Bool[Array, "B K"]) -> Int[Array, " B"]:
    """Count how many are true before the first that is not."""
    return jnp.cumprod(is_so_BK.astype(jnp.int32), axis=1).sum(axis=1)


def count_through(is_so_BK: Bool[Array, "B K"]) -> Int[Array, " B"]:
    """Count those up to the first that is true, itself included; all if none is."""
    return jnp.minimum(count_leading(~is_so_BK) + 1, is_so_BK.shape[1])
