"""What a batch is decoded from, and what comes out of it; both live on the device."""

import dataclasses

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GenerateInputs:
    """A batch of windows to decode. A row never depends on its neighbors.

    Attributes:
        encoder_out_BSD: Output of the encoder.
        prompt_BP: Decoder prompts, padded on the right; each holds one ``<|startoftranscript|>``.
        prompt_length_B: Number of tokens of each prompt.
        limit_B: Maximum number of tokens per row, if it is below ``max_new_tokens``; 0 marks an idle row.
        temperature_B: Temperature of each row; rows at 0 take the most likely token. None compiles no
            sampling: greedy search, or beam search if it is asked for.
        seed_B: Random seed of each row, used with ``temperature_B``; 0 by default.
        prefix_length_B: How many tokens at the end of each prompt are the forced beginning of its transcript,
            which the logits processors count as emitted; none by default.
        assistant_encoder_out_BSE: Output of the assistant's own encoder, in speculative decoding; by default
            the assistant attends to ``encoder_out_BSD``.
    """

    encoder_out_BSD: Float[Array, "B S D"]
    prompt_BP: Int[Array, "B P"]
    prompt_length_B: Int[Array, " B"]
    limit_B: Int[Array, " B"] | None = None
    temperature_B: Float[Array, " B"] | None = None
    seed_B: Int[Array, " B"] | None = None
    prefix_length_B: Int[Array, " B"] | None = None
    assistant_encoder_out_BSE: Float[Array, "B S E"] | None = None

    def rows(self, positions: int, max_new_tokens: int) -> "RowSettings":
        """Return what each row is decoded with; arguments and errors as those of :meth:`token_limits`."""
        seed_B = jnp.zeros_like(self.prompt_length_B) if self.seed_B is None else self.seed_B
        return RowSettings(
            prompt_length_B=self.prompt_length_B,
            limit_B=self.token_limits(positions, max_new_tokens),
            temperature_B=self.temperature_B,
            seed_B=None if self.temperature_B is None else seed_B,
        )

    def token_limits(self, positions: int, max_new_tokens: int) -> Int[Array, " B"]:
        """Return how many tokens each row may have: as many as asked for, if its prompt leaves room for them.

        Args:
            positions: Number of positions of the decoder.
            max_new_tokens: Maximum number of tokens of any row.

        Raises:
            ValueError: If the padded prompts leave no position for a token.
        """
        if self.prompt_BP.shape[1] >= positions:
            raise ValueError(
                f"{self.prompt_BP.shape[1]} prompt tokens leave none of the model's {positions} positions"
            )
        room_B = (positions - self.prompt_length_B).clip(max=max_new_tokens)
        return room_B if self.limit_B is None else self.limit_B.clip(max=room_B)

    def at_start(self, sot: int) -> Int[Array, " B"]:
        """Return the position of ``<|startoftranscript|>`` in each prompt."""
        return (self.prompt_BP == sot).argmax(axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowSettings:
    """What each row is decoded with, beside its encoder output and its prompt.

    Attributes:
        prompt_length_B: Number of tokens of each prompt.
        limit_B: Maximum number of tokens per row; 0 marks an idle row.
        temperature_B: Temperature of each row; None where nothing is sampled.
        seed_B: Random seed of each row; None where nothing is sampled.
    """

    prompt_length_B: Int[Array, " B"]
    limit_B: Int[Array, " B"]
    temperature_B: Float[Array, " B"] | None
    seed_B: Int[Array, " B"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GenerateOutput:
    """The tokens of a batch.

    Attributes:
        tokens_BT: Emitted tokens without the prompt, padded with end-of-text.
        logprobs_BT: Natural logarithm of each token's probability after the logits processors (at temperature
            1). The end-of-text token's is included where it was emitted; padding has 0.
        length_B: Number of emitted tokens, without end-of-text.
        avg_logprob_B: Sum of ``logprobs_BT`` over ``length_B + 1``, as openai/whisper computes it.
        no_speech_prob_B: Probability of ``<|nospeech|>`` right after ``<|startoftranscript|>``.
    """

    tokens_BT: Int[Array, "B T"]
    logprobs_BT: Float[Array, "B T"]
    length_B: Int[Array, " B"]
    avg_logprob_B: Float[Array, " B"]
    no_speech_prob_B: Float[Array, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SpeculativeOutput(GenerateOutput):
    """The teacher's tokens, and what they cost.

    Attributes:
        rounds_B: Passes of the teacher over a draft, until the row had ended.
        drafted_B: Tokens that the student proposed, except those behind an end of text or a limit.
        accepted_B: How many of them were emitted.
        emitted_B: All tokens that were emitted, including end-of-text.
    """

    rounds_B: Int[Array, " B"]
    drafted_B: Int[Array, " B"]
    accepted_B: Int[Array, " B"]
    emitted_B: Int[Array, " B"]
