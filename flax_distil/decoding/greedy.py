"""Greedy search and sampling: one token per hypothesis and step."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.hypotheses import Hypotheses, SamplingState, rank_scores
from flax_distil.decoding.logits_processors import LogitsProcessors, process_logits
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import sample_tokens
from flax_distil.decoding.types import GenerateOutput, RowSettings


class GreedyOrSample:
    """Takes the most likely token of every row, or samples one, and keeps the best of several samples.

    Attributes:
        num_hypotheses: Number of samples per row.

    Source: ``GreedyDecoder`` of openai/whisper.
    """

    def __init__(self, processors: LogitsProcessors, options: SearchOptions, *, samples: bool):
        """Keep the settings.

        Args:
            processors: Which tokens may be emitted.
            options: How tokens are chosen.
            samples: Whether rows have temperatures, some of them above 0.
        """
        self._processors, self._options = processors, options
        self.num_hypotheses = options.best_of if samples else 1

    def start(
        self, hypotheses: Hypotheses, rows: RowSettings, no_speech_prob_B: Float[Array, " B"]
    ) -> SamplingState:
        """Return the state before the first token."""
        idle_BK = jnp.broadcast_to((rows.limit_B < 1)[:, None], hypotheses.path_BKT.shape[:2])
        return SamplingState(hypotheses, idle_BK, rows, no_speech_prob_B)

    def update(
        self, state: SamplingState, logits: Float[Array, "B V"] | Float[Array, "B K V"]
    ) -> SamplingState:
        """Choose the next token of every hypothesis; all share the logits of the first one."""
        hypotheses, done_BK = state.hypotheses, state.done
        end, shape = self._processors.special.eot, done_BK.shape
        logits_QV = (
            jnp.repeat(logits, shape[1], axis=0) if logits.ndim == 2 else logits.reshape(-1, logits.shape[2])
        )
        logits_QV = process_logits(self._processors, logits_QV, hypotheses.history)
        token_Q = self._choose(logits_QV, state)
        logprob_Q = jnp.take_along_axis(logits_QV, token_Q[:, None], axis=1)[:, 0]
        logprob_Q -= jax.nn.logsumexp(logits_QV, axis=1)
        token_BK = jnp.where(done_BK, end, token_Q.reshape(shape))
        logprob_BK = jnp.where(done_BK, 0.0, logprob_Q.reshape(shape))
        is_last_BK = hypotheses.count_BK + 1 >= state.rows.limit_B[:, None]
        return SamplingState(
            hypotheses=hypotheses.append(token_BK, logprob_BK, self._processors.special, done_BK=done_BK),
            done=done_BK | (token_BK == end) | is_last_BK,
            rows=state.rows,
            no_speech_prob_B=state.no_speech_prob_B,
        )

    def _choose(self, logits_QV: Float[Array, "Q V"], state: SamplingState) -> Int[Array, " Q"]:
        temperature_B, seed_B, count = state.rows.temperature_B, state.rows.seed_B, self.num_hypotheses
        if temperature_B is None or seed_B is None:
            return logits_QV.argmax(axis=1).astype(jnp.int32)
        return sample_tokens(
            logits_QV,
            jnp.repeat(temperature_B, count),
            jnp.repeat(seed_B, count),
            jnp.tile(jnp.arange(count), len(seed_B)),
            state.hypotheses.history.count,
            self._options,
        )

    def finalize(self, state: SamplingState, max_new_tokens: int) -> GenerateOutput:
        """Return the best sample of every row."""
        end = self._processors.special.eot
        tokens_BWK, logprobs_BWK, _ = state.hypotheses.in_order(end, max_new_tokens)
        length_BK, total_BK = (tokens_BWK != end).sum(axis=1), logprobs_BWK.sum(axis=1)
        best_B = rank_scores(total_BK, length_BK, self._options.length_penalty).argmax(axis=1)

        def of_best(values: Array) -> Array:
            index = best_B.reshape(-1, *[1] * (values.ndim - 1))
            return jnp.take_along_axis(values, index, axis=-1)[..., 0]

        length_B = of_best(length_BK)
        return GenerateOutput(
            tokens_BT=of_best(tokens_BWK),
            logprobs_BT=of_best(logprobs_BWK),
            length_B=length_B,
            avg_logprob_B=of_best(total_BK) / (length_B + 1),
            no_speech_prob_B=state.no_speech_prob_B,
        )
