"""Batched greedy search and sampling: one token per sequence and step until all have ended."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.logits_processors import LogitsProcessors, process_logits
from flax_distil.decoding.loop import DecodeLoop, SamplingState, rank_scores
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.result import GenerateOutput
from flax_distil.decoding.sampling import sample_tokens


def sample(
    decoder: DecodeLoop,
    processors: LogitsProcessors,
    options: SearchOptions,
    *,
    temperature_B: Float[Array, " B"] | None = None,
    seed_B: Int[Array, " B"] | None = None,
) -> GenerateOutput:
    """Emit tokens of every row until all rows have ended, and keep the best of several samples.

    Args:
        decoder: of one or more sequences per row.
        processors: static.
        options: static.
        temperature_B: see ``search``; None takes the likeliest tokens and compiles no draw.
        seed_B: see ``search``; by default 0.
    """
    rows, samples, _ = decoder.first.path_BKT.shape
    end = processors.special.eot
    sample_Q = jnp.tile(jnp.arange(samples), rows)
    temperature_Q = None if temperature_B is None else jnp.repeat(temperature_B, samples)
    seed_Q = jnp.zeros_like(sample_Q) if seed_B is None else jnp.repeat(seed_B, samples)

    def choose(state: SamplingState, logits_BKV: Float[Array, "B K V"]) -> SamplingState:
        hypotheses, done_BK = state.hypotheses, state.done
        logits_QV = logits_BKV.reshape(rows * samples, -1)
        scores_QV = process_logits(processors, logits_QV, hypotheses.history)
        if temperature_Q is None:
            best_Q = scores_QV.argmax(axis=1).astype(jnp.int32)
        else:
            best_Q = sample_tokens(
                scores_QV, temperature_Q, seed_Q, sample_Q, hypotheses.history.count, options
            )
        best_score_Q = jnp.take_along_axis(scores_QV, best_Q[:, None], axis=1)[:, 0]
        logprob_Q = best_score_Q - jax.nn.logsumexp(scores_QV, axis=1)
        token_BK = jnp.where(done_BK, end, best_Q.reshape(rows, samples))
        logprob_BK = jnp.where(done_BK, 0.0, logprob_Q.reshape(rows, samples))
        is_last_B1 = (hypotheses.history.count + 1 >= decoder.limit_B)[:, None]
        return SamplingState(
            hypotheses=hypotheses.followed_by(token_BK, logprob_BK, processors.special),
            done=done_BK | (token_BK == end) | is_last_B1,
        )

    idle_BK = jnp.broadcast_to((decoder.limit_B < 1)[:, None], (rows, samples))
    first_BKV = jnp.repeat(decoder.first_logits_BV[:, None], samples, axis=1)
    final = decoder.run(choose(SamplingState(decoder.first, idle_BK), first_BKV), choose).hypotheses
    length_BK = (final.tokens_BTK != end).sum(axis=1)
    total_BK = final.logprobs_BTK.sum(axis=1)
    best_B = rank_scores(total_BK, length_BK, options.length_penalty).argmax(axis=1)

    def of_best(values: Array) -> Array:
        index = best_B.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.take_along_axis(values, index, axis=-1)[..., 0]

    length_B = of_best(length_BK)
    return GenerateOutput(
        tokens_BT=of_best(final.tokens_BTK),
        logprobs_BT=of_best(final.logprobs_BTK),
        length_B=length_B,
        avg_logprob_B=of_best(total_BK) / (length_B + 1),
        no_speech_prob_B=decoder.no_speech_prob_B,
    )
