"""Windows decoded with an assistant: a student drafts what the model then checks."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.decoding.drafting import draft_embedding
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.speculative import SpeculativeOutput, speculative_generate
from flax_distil.model.assembly import bind_decoder, decode_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import BATCH, REPLICATED, ROWS, Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.decode_fns import Shape, prepared, shape_on
from flax_distil.transcription.generator import (
    DecodingRequest,
    DecodingResult,
    EncoderOutput,
    PendingBatch,
    WhisperGenerator,
)
from flax_distil.transcription.options import TranscriptionOptions

_DRAFT_TOKENS, _DRAFT_TOKENS_ON_CPU = 5, 3
"""Most tokens of a draft. A pass over more of them costs an accelerator nothing, but a CPU: four rows,
three drafted tokens and the one before, take it least time per row.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assistant:
    """A student that drafts.

    Attributes:
        config: its shape.
        params: its tree, laid as that of the model; without the branch ``encoder`` it attends to the states
            of the model's encoder.
        tokenizer: of its checkpoint.
    """

    config: WhisperConfig
    params: Params
    tokenizer: WhisperTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeculativeStatistics:
    """How well an assistant drafts.

    Attributes:
        rounds: passes of the model over a draft, those of each row counted.
        drafted: tokens that were drafted, those behind an end of text or a limit left out.
        accepted: how many of them were emitted.
        tokens: emitted, end-of-text included; without an assistant, as many passes of the model.
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

    At temperature 0 the tokens are those of greedy search, at others they have the same distribution. But
    where two tokens are equally likely to within rounding, that decides, most often in bfloat16.

    Attributes:
        assistant: the student.
        statistics: of all windows collected in this process since :meth:`reset_statistics`.
    """

    def __init__(
        self,
        config: WhisperConfig,
        params: Params,
        tokenizer: WhisperTokenizer,
        settings: GenerationSettings,
        *,
        assistant: Assistant,
        num_assistant_tokens: int | None = None,
        options: TranscriptionOptions,
        compute: ComputeOptions,
        partitioner: Partitioner | None = None,
    ):
        """Bind weights to options; allocates and compiles nothing.

        Args:
            config: as of :class:`WhisperGenerator`, as are those that are not listed here.
            params: of the model.
            tokenizer: of the model.
            settings: of the model; the assistant's are not asked.
            assistant: the student.
            num_assistant_tokens: most tokens of a draft; by default 5, on a CPU 3.
            options: language, task, timestamps, search.
            compute: dtype.
            partitioner: over the devices to use.

        Raises:
            InputError: if the assistant does not fit the model or the options.
        """
        super().__init__(
            config, params, tokenizer, settings, options=options, compute=compute, partitioner=partitioner
        )
        _check(config, tokenizer, assistant, options)
        if num_assistant_tokens is None:
            is_on_cpu = self.partitioner.mesh.devices.flat[0].platform == "cpu"
            num_assistant_tokens = _DRAFT_TOKENS_ON_CPU if is_on_cpu else _DRAFT_TOKENS
        if not 1 <= num_assistant_tokens < config.max_target_positions:
            raise InputError(
                f"num_assistant_tokens {num_assistant_tokens} is not between 1 and "
                f"{config.max_target_positions - 1}"
            )
        self.assistant, self._num_assistant_tokens = assistant, num_assistant_tokens
        self.statistics = SpeculativeStatistics()
        self._own_encoder: WhisperGenerator | None = None
        if "encoder" in assistant.params:
            self._own_encoder = WhisperGenerator(
                assistant.config, assistant.params, tokenizer, settings,
                options=options, compute=compute, partitioner=self.partitioner,
            )  # fmt: skip
        self._assistant_shape = shape_on(self.partitioner, assistant.config, compute)

    def encode_samples(self, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
        """See :class:`WhisperGenerator`; an assistant's own encoder runs too."""
        return self._with_own(super().encode_samples(samples_BW), WhisperGenerator.encode_samples, samples_BW)

    def encode_features(self, mel_BRM: Float[np.ndarray, "B R M"]) -> EncoderOutput:
        """See :class:`WhisperGenerator`; an assistant's own encoder runs too."""
        return self._with_own(super().encode_features(mel_BRM), WhisperGenerator.encode_features, mel_BRM)

    def collect(self, batch: PendingBatch) -> list[DecodingResult | None]:
        """Wait for a dispatched batch and return what was decoded of each row; counts in ``statistics``."""
        results = super().collect(batch)
        for part, rows in batch.parts:
            assert isinstance(part, SpeculativeOutput)
            counts = self.partitioner.local_rows(
                {
                    "rounds": part.rounds_B,
                    "drafted": part.drafted_B,
                    "accepted": part.accepted_B,
                    "tokens": part.emitted_B,
                }
            )
            own = sorted(rows)
            self.statistics = SpeculativeStatistics(
                **{
                    name: getattr(self.statistics, name) + int(count[own].sum())
                    for name, count in counts.items()
                }
            )
        return results

    def reset_statistics(self) -> None:
        """Start counting again."""
        self.statistics = SpeculativeStatistics()

    def _with_own(
        self, states: EncoderOutput, encode: Callable[..., EncoderOutput], inputs: np.ndarray
    ) -> EncoderOutput:
        if self._own_encoder is None:
            return states
        return {**states, "assistant_encoder_out_BSD": encode(self._own_encoder, inputs)["encoder_out_BSD"]}

    def _search(
        self, states: EncoderOutput, requests: Sequence[DecodingRequest | None], rows: frozenset[int]
    ) -> SpeculativeOutput:
        asked = [request if row in rows else None for row, request in enumerate(requests)]
        batch = self.partitioner.put_batch(self._search_batch(asked))
        program = _program(
            self.partitioner,
            self.shape,
            self._assistant_shape,
            self.processors,
            self.options.search,
            self._num_assistant_tokens,
            self.max_new_tokens,
        )
        return program(
            self.decoder_params, self._assistant_params, self._draft_embedding, {**states, **batch}
        )

    @functools.cached_property
    def _assistant_params(self) -> Params:
        return prepared(self.partitioner, self._assistant_shape, self.assistant.params["decoder"])

    @functools.cached_property
    def _draft_embedding(self) -> Array:
        return _embedding_program(self.partitioner, self._assistant_shape, self.processors)(
            self._assistant_params
        )


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


@functools.lru_cache(maxsize=32)
def _program(
    partitioner: Partitioner,
    shape: Shape,
    assistant: Shape,
    processors: LogitsProcessors,
    options: SearchOptions,
    num_assistant_tokens: int,
    max_new_tokens: int,
) -> Callable[..., SpeculativeOutput]:
    """Return the program of a search, ``(decoder, assistant's, draft embedding, batch) -> result``."""
    function = functools.partial(
        _speculate, shape, assistant, processors, options, num_assistant_tokens, max_new_tokens
    )
    arguments = _decoder_specs(partitioner, shape), _decoder_specs(partitioner, assistant), REPLICATED, BATCH
    return partitioner.jit(partitioner.shard_map(function, in_specs=arguments, out_specs=ROWS))


@functools.lru_cache(maxsize=32)
def _embedding_program(
    partitioner: Partitioner, shape: Shape, processors: LogitsProcessors
) -> Callable[[Params], Array]:
    def embedding(decoder: Params) -> Array:
        return draft_embedding(bind_decoder(shape.config, shape.compute, decoder), processors)

    arguments = (_decoder_specs(partitioner, shape),)
    return partitioner.jit(partitioner.shard_map(embedding, in_specs=arguments, out_specs=REPLICATED))


def _decoder_specs(partitioner: Partitioner, shape: Shape) -> Any:
    return partitioner.weight_specs(decode_shapes(shape.config))["decoder"]


def _speculate(
    shape: Shape,
    assistant: Shape,
    processors: LogitsProcessors,
    options: SearchOptions,
    num_assistant_tokens: int,
    max_new_tokens: int,
    teacher: Params,
    student: Params,
    draft_embedding_ND: Array,
    batch: Mapping[str, Array],
) -> SpeculativeOutput:
    return speculative_generate(
        bind_decoder(shape.config, shape.compute, teacher),
        bind_decoder(assistant.config, assistant.compute, student),
        batch["encoder_out_BSD"],
        batch["prompt_BP"],
        batch["prompt_length_B"],
        processors=processors,
        options=options,
        num_assistant_tokens=num_assistant_tokens,
        max_new_tokens=max_new_tokens,
        student_encoder_out_BSD=batch.get("assistant_encoder_out_BSD"),
        draft_embedding_ND=draft_embedding_ND,
        limit_B=batch["limit_B"],
        temperature_B=batch.get("temperature_B"),
        seed_B=batch.get("seed_B"),
        prefix_length_B=batch.get("prefix_length_B"),
    )
