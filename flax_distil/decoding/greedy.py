"""Greedy search and sampling: one token per hypothesis and step."""

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.decoding.hypotheses import Hypotheses, SamplingState, rank_scores
from flax_distil.decoding.logits_processors import LogitsProcessors, process_logits
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import sample_tokens
from flax_distil.decoding.types import GenerateInputs, GenerateOutput


class GreedyOrSample:
    """Takes the most likely token of every row, or samples one, and keeps the best of several samples.

    Attributes:
        num_hypotheses: Number of samples per row.

    Source: ``GreedyDecoder`` of openai/whisper.
    """

    def __init__(
        self,
        inputs: GenerateInputs,
        limit_B: Int[Array, " B"],
        processors: LogitsProcessors,
        options: SearchOptions,
    ):
        """Take the temperature and the seed of every sample from the batch.

        Args:
            inputs: The batch.
            limit_B: Maximum number of tokens per row; 0 marks an idle row.
            processors: Which tokens may be emitted.
            options: How tokens are chosen.
        """
        self._limit_B, self._processors, self._options = limit_B, processors, options
        rows, self.num_hypotheses = (
            len(inputs.prompt_BP),
            1 if inputs.temperature_B is None else options.best_of,
        )
        self._sample_Q = jnp.tile(jnp.arange(self.num_hypotheses), rows)
        self._temperature_Q = self._seed_Q = None
        if inputs.temperature_B is not None:
            self._temperature_Q = jnp.repeat(inputs.temperature_B, self.num_hypotheses)
            seed_B = jnp.zeros(rows, jnp.int32) if inputs.seed_B is None else inputs.seed_B
            self._seed_Q = jnp.repeat(seed_B, self.num_hypotheses)

    def start(self, hypotheses: Hypotheses) -> SamplingState:
        """Return the state before the first token."""
        idle_BK = jnp.broadcast_to((self._limit_B < 1)[:, None], hypotheses.path_BKT.shape[:2])
        return SamplingState(hypotheses, idle_BK)

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
        token_Q = self._choose(logits_QV, hypotheses.history.count)
        logprob_Q = jnp.take_along_axis(logits_QV, token_Q[:, None], axis=1)[:, 0]
        logprob_Q -= jax.nn.logsumexp(logits_QV, axis=1)
        token_BK = jnp.where(done_BK, end, token_Q.reshape(shape))
        logprob_BK = jnp.where(done_BK, 0.0, logprob_Q.reshape(shape))
        is_last_B1 = (hypotheses.history.count + 1 >= self._limit_B)[:, None]
        return SamplingState(
            hypotheses=hypotheses.append(token_BK, logprob_BK, self._processors.special),
            done=done_BK | (token_BK == end) | is_last_B1,
        )

    def _choose(self, logits_QV: Float[Array, "Q V"], count: Int[Array, ""]) -> Int[Array, " Q"]:
        if self._temperature_Q is None or self._seed_Q is None:
            return logits_QV.argmax(axis=1).astype(jnp.int32)
        return sample_tokens(
            logits_QV, self._temperature_Q, self._seed_Q, self._sample_Q, count, self._options
        )

    def finalize(self, state: SamplingState, no_speech_prob_B: Float[Array, " B"]) -> GenerateOutput:
        """Return the best sample of every row."""
        hypotheses = state.hypotheses
        length_BK = (hypotheses.tokens_BTK != self._processors.special.eot).sum(axis=1)
        total_BK = hypotheses.logprobs_BTK.sum(axis=1)
        best_B = rank_scores(total_BK, length_BK, self._options.length_penalty).argmax(axis=1)

        def of_best(values: Array) -> Array:
            index = best_B.reshape(-1, *[1] * (values.ndim - 1))
            return jnp.take_along_axis(values, index, axis=-1)[..., 0]

        length_B = of_best(length_BK)
        return GenerateOutput(
            tokens_BT=of_best(hypotheses.tokens_BTK),
            logprobs_BT=of_best(hypotheses.logprobs_BTK),
            length_B=length_B,
            avg_logprob_B=of_best(total_BK) / (length_B + 1),
            no_speech_prob_B=no_speech_prob_B,
        )
