"""What a search returns."""

import dataclasses

import jax

from flax_distil.core.arrays import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GenerateOutput:
    """What a search returns, on the device.

    Attributes:
        tokens_BT: emitted tokens without the prompt, padded with end-of-text.
        logprobs_BT: natural logarithm of each token's probability after the processors (temperature 1), the
            end-of-text token's included where it was emitted; 0 on padding.
        length_B: emitted tokens, end-of-text left out.
        avg_logprob_B: sum of ``logprobs_BT`` over ``length_B + 1`` (as OpenAI's code counts).
        no_speech_prob_B: probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
    """

    tokens_BT: Int[Array, "B T"]
    logprobs_BT: Float[Array, "B T"]
    length_B: Int[Array, " B"]
    avg_logprob_B: Float[Array, " B"]
    no_speech_prob_B: Float[Array, " B"]
