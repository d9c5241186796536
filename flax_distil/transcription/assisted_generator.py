"""Windows decoded with an assistant: a student drafts tokens, which the model then verifies."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.decoding.drafting import draft_embedding
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.speculative import SpeculativeLoop
from flax_distil.decoding.types import GenerateInputs
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import REPLICATED, Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decode_fns import (
    ModelShape,
    SearchFns,
    decoder_params,
    decoder_specs,
    jit_search,
)
from flax_distil.transcription.decoding_request import RowSteps
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions

_DRAFT_TOKENS, _DRAFT_TOKENS_ON_CPU = 5, 3
"""Maximum number of tokens of a draft. A pass over more tokens costs an accelerator nothing. A CPU needs the
least time per row with four of them: three drafted tokens and the one before.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assistant:
    """A student that drafts.

    Attributes:
        config: Its shape.
        params: Its tree, laid as that of the model. Without a branch ``encoder`` it attends to the output of
            the model's encoder.
        tokenizer: Tokenizer of its checkpoint.
        num_tokens: Maximum number of tokens of a draft; by default 5, on a CPU 3.
    """

    config: WhisperConfig
    params: Params
    tokenizer: WhisperTokenizer
    num_tokens: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeculativeStatistics:
    """How well an assistant drafts.

    Attributes:
        rounds: Passes of the model over a draft, counted for each row.
        drafted: Tokens that were drafted, except those behind an end of text or a limit.
        accepted: How many of them were emitted.
        tokens: Emitted tokens, including end-of-text; without an assistant, the model needs as many passes.
    """

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

    @property
    def acceptance_rate(self) -> float:
        """Accepted tokens per drafted one, from 0 to 1."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def passes_per_token(self) -> float:
        """Passes of the model per emitted token, at most 1."""
        return self.rounds / self.tokens if self.tokens else 0.0


class AssistedGenerator(WhisperGenerator):
    """A Whisper checkpoint that decodes faster what it would decode alone.

    At temperature 0 the tokens are those of greedy search. At other temperatures they have the same
    distribution. Where two tokens are equally likely up to rounding errors, these may decide otherwise, most
    often in bfloat16.

    Attributes:
        assistant: The student.
        statistics: Counts of all windows collected in this process since :meth:`reset_statistics`.
    """

    def __init__(
        self,
        config: WhisperConfig,
        params: Params,
        tokenizer: WhisperTokenizer,
        settings: GenerationSettings,
        *,
        assistant: Assistant,
        options: TranscriptionOptions,
        compute: ComputeOptions,
        partitioner: Partitioner | None = None,
    ):
        """Bind weights to options; allocates and compiles nothing.

        Args:
            config: As the other arguments, see :class:`WhisperGenerator`.
            params: Parameters of the model.
            tokenizer: Tokenizer of the model.
            settings: Settings of the model; those of the assistant are not used.
            assistant: The student.
            options: Language, task, timestamps, search.
            compute: How both compute.
            partitioner: The devices to use.

        Raises:
            InputError: If the assistant does not fit the model or the options.
        """
        super().__init__(
            config, params, tokenizer, settings, options=options, compute=compute, partitioner=partitioner
        )
        _check(config, tokenizer, assistant, options)
        is_on_cpu = self.partitioner.mesh.devices.flat[0].platform == "cpu"
        usual = _DRAFT_TOKENS_ON_CPU if is_on_cpu else _DRAFT_TOKENS
        self._num_tokens = usual if assistant.num_tokens is None else assistant.num_tokens
        if not 1 <= self._num_tokens < config.max_target_positions:
            raise InputError(
                f"num_assistant_tokens {self._num_tokens} is not between 1 and "
                f"{config.max_target_positions - 1}"
            )
        self.assistant = assistant
        self.statistics = SpeculativeStatistics()
        self._own_encoder: WhisperGenerator | None = None
        if "encoder" in assistant.params:
            self._own_encoder = WhisperGenerator(
                assistant.config, assistant.params, tokenizer, settings,
                options=options, compute=compute, partitioner=self.partitioner,
            )  # fmt: skip
        self._assistant_shape = ModelShape.on(self.partitioner, assistant.config, compute)

    def encode_samples(self, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
        """See :class:`WhisperGenerator`; the assistant's own encoder runs too."""
        return self._add_assistant_output(
            super().encode_samples(samples_BW), WhisperGenerator.encode_samples, samples_BW
        )

    def encode_features(self, mel_BRM: Float[np.ndarray, "B R M"]) -> EncoderOutput:
        """See :class:`WhisperGenerator`; the assistant's own encoder runs too."""
        return self._add_assistant_output(
            super().encode_features(mel_BRM), WhisperGenerator.encode_features, mel_BRM
        )

    def _count(self, found: Mapping[str, np.ndarray], rows: Sequence[int]) -> None:
        """Update ``statistics``."""
        counts = {
            "rounds": "rounds_B",
            "drafted": "drafted_B",
            "accepted": "accepted_B",
            "tokens": "emitted_B",
        }
        self.statistics = SpeculativeStatistics(
            **{
                name: getattr(self.statistics, name) + int(found[field][rows].sum())
                for name, field in counts.items()
            }
        )

    def _row_steps(self, found: Mapping[str, np.ndarray]) -> RowSteps:
        """See :class:`WhisperGenerator`; the first round comes with the prompt."""
        rounds_B = np.maximum(found["rounds_B"] - 1, 0)
        by_device = rounds_B.reshape(self.partitioner.local_batch_shards, -1)
        return RowSteps(int(by_device.max(axis=1).sum()) * by_device.shape[1], int(rounds_B.sum()))

    def reset_statistics(self) -> None:
        """Start counting again."""
        self.statistics = SpeculativeStatistics()

    def _add_assistant_output(
        self, encoder_out: EncoderOutput, encode: Callable[..., EncoderOutput], inputs: np.ndarray
    ) -> EncoderOutput:
        if self._own_encoder is None:
            return encoder_out
        own = encode(self._own_encoder, inputs)["encoder_out_BSD"]
        return {**encoder_out, "assistant_encoder_out_BSE": own}

    @functools.cached_property
    def _assistant_params(self) -> Params:
        return decoder_params(self.partitioner, self._assistant_shape, self.assistant.params["decoder"])

    @functools.cached_property
    def _draft_embedding(self) -> Array:
        embed = functools.partial(_draft_embedding, self._assistant_shape, self.processors)
        specs = (decoder_specs(self.partitioner, self._assistant_shape),)
        embedding: Array = self.partitioner.jit(embed, in_specs=specs, out_specs=REPLICATED)(
            self._assistant_params
        )
        return embedding

    @functools.cached_property
    def _search(self) -> SearchFns:
        shapes = self.shape, self._assistant_shape
        make_loop = functools.partial(
            _speculative_loop,
            shapes,
            processors=self.processors,
            options=self.options.search,
            max_new_tokens=self.max_new_tokens,
            num_assistant_tokens=self._num_tokens,
        )
        specs = *(decoder_specs(self.partitioner, shape) for shape in shapes), REPLICATED
        weights = self.decoder_params, self._assistant_params, self._draft_embedding
        return jit_search(self.partitioner, make_loop, specs).of_weights(*weights)


def _check(
    config: WhisperConfig, tokenizer: WhisperTokenizer, assistant: Assistant, options: TranscriptionOptions
) -> None:
    """Raise ``InputError`` unless the assistant can draft for the model."""
    other = assistant.config
    for name in ("num_beams", "best_of"):
        if (value := getattr(options.search, name)) > 1:
            raise InputError(
                f"an assistant drafts one sequence per row, not {name} {value}: leave out either of them"
            )
    if other.vocab_size != config.vocab_size or assistant.tokenizer.special != tokenizer.special:
        raise InputError(
            f"the assistant's vocabulary of {other.vocab_size} tokens is not the model's of "
            f"{config.vocab_size}: choose a student of the same family"
        )
    is_decoder_alone = "decoder" in assistant.params and "encoder" not in assistant.params
    if is_decoder_alone and other.d_model != config.d_model:
        raise InputError(
            f"the assistant has no encoder, and its decoder of width {other.d_model} cannot attend to the "
            f"model's encoder of width {config.d_model}: choose a student that was made of this model"
        )
    if other.max_source_positions != config.max_source_positions:
        raise InputError(
            f"the assistant hears {other.window_seconds:g} s at a time and the model "
            f"{config.window_seconds:g} s: choose an assistant of the same window"
        )
    if other.num_mel_bins != config.num_mel_bins:
        raise InputError(
            f"the assistant's encoder takes {other.num_mel_bins} mel bins and the model's "
            f"{config.num_mel_bins}: choose a student of the same family"
        )


def _draft_embedding(shape: ModelShape, processors: LogitsProcessors, decoder: Params) -> Array:
    return draft_embedding(shape.bind_decoder(decoder), processors)


def _speculative_loop(
    shapes: tuple[ModelShape, ModelShape],
    teacher: Params,
    student: Params,
    draft_embedding_ND: Array,
    inputs: GenerateInputs,
    **settings: Any,
) -> SpeculativeLoop:
    return SpeculativeLoop(
        shapes[0].bind_decoder(teacher),
        shapes[1].bind_decoder(student),
        prompt_slots=inputs.prompt_BP.shape[1],
        draft_embedding_ND=draft_embedding_ND,
        **settings,
    )
