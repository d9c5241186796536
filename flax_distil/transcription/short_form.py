"""Recordings of at most 30 s, in batches: log-mel, encoder and search on the device."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, log_mel
from flax_distil.core import Array, Float, InputError, Params
from flax_distil.generation import DecodingRules, GreedyResult, greedy_search, language_probabilities
from flax_distil.model import ComputeOptions, WhisperConfig, bind_decoder, bind_encoder
from flax_distil.text import GenerationSettings, SpecialTokens, WhisperTokenizer
from flax_distil.transcription.results import Transcript, TranscriptionOptions


class _Shape(NamedTuple):
    """The static part of every program here."""

    config: WhisperConfig
    compute: ComputeOptions


class DispatchedBatch(NamedTuple):
    """A batch the device may still be working on; see ``ShortFormTranscriber.collect``."""

    result: GreedyResult
    languages: list[str]


class ShortFormTranscriber:
    """A Whisper checkpoint ready to transcribe batches of 30 s windows greedily.

    Programs are compiled once per batch size and shared by all transcribers of the same
    shape, so evaluating new weights of the same student compiles nothing.
    """

    def __init__(
        self,
        config: WhisperConfig,
        params: Params,
        tokenizer: WhisperTokenizer,
        settings: GenerationSettings,
        *,
        options: TranscriptionOptions,
        compute: ComputeOptions,
        batch_sharding: jax.sharding.Sharding | None = None,
    ):
        """Bind weights to options; allocates and compiles nothing.

        Args:
            config: shape of the model.
            params: its whole tree, where it should compute.
            tokenizer: of the checkpoint.
            settings: its suppressed tokens and limits.
            options: language, task, timestamps.
            compute: dtype.
            batch_sharding: how a batch is laid over devices; ``params`` are then replicated.

        Raises:
            InputError: if the options do not fit the vocabulary (a language or a translation
                asked of an English-only model) or the limit of tokens the model.
        """
        self._shape = _Shape(config, compute)
        self._params = params
        self._tokenizer = tokenizer
        self._options = options
        self._batch_sharding = batch_sharding
        special = tokenizer.special
        self._rules = DecodingRules.from_settings(
            settings, special, return_timestamps=options.return_timestamps
        )
        any_language = options.language or ("en" if special.is_multilingual else None)
        prompt = tokenizer.prompt(any_language, options.task, options.return_timestamps)
        room = config.max_target_positions - len(prompt)
        if options.max_new_tokens is not None and options.max_new_tokens > room:
            raise InputError(
                f"max_new_tokens {options.max_new_tokens} is too large: the model has room for {room} "
                "tokens after the prompt"
            )
        self._max_new_tokens = options.max_new_tokens or max(1, min(room, settings.max_length - len(prompt)))

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size and return the seconds it took."""
        start = time.perf_counter()
        self.transcribe(np.zeros((batch_size, CHUNK_SAMPLES), np.float32), stop_at_once=True)
        return time.perf_counter() - start

    def transcribe(
        self, samples_BW: Float[np.ndarray, "B W"], *, stop_at_once: bool = False
    ) -> list[Transcript]:
        """Transcribe a batch; ``stop_at_once`` emits one token, to compile and no more."""
        return self.collect(self.dispatch(samples_BW, stop_at_once=stop_at_once))

    def dispatch(
        self, samples_BW: Float[np.ndarray | Array, "B W"], *, stop_at_once: bool = False
    ) -> DispatchedBatch:
        """Send a batch of 16 kHz windows of 30 s to the device, unless it is there, and return at once.

        Only where the language must be detected first does this wait for the encoder.
        """
        samples = jax.device_put(samples_BW, self._batch_sharding)
        states_BSD = _encode(self._shape, self._params["encoder"], samples)
        return self.dispatch_states(states_BSD, stop_at_once=stop_at_once)

    def dispatch_states(
        self, states_BSD: Float[Array, "B S D"], *, stop_at_once: bool = False
    ) -> DispatchedBatch:
        """Do the same from encoder states already at hand."""
        rows = states_BSD.shape[0]
        languages = self._languages(states_BSD)
        prompts = [
            self._tokenizer.prompt(
                language if self._tokenizer.special.is_multilingual else None,
                self._options.task,
                self._options.return_timestamps,
            )
            for language in languages
        ]
        result = _search(
            self._shape,
            self._rules,
            self._max_new_tokens,
            self._params["decoder"],
            states_BSD,
            jnp.asarray(prompts, jnp.int32),
            jnp.full(rows, len(prompts[0]), jnp.int32),
            jnp.int32(1 if stop_at_once else self._max_new_tokens),
        )
        return DispatchedBatch(result, languages)

    def collect(self, batch: DispatchedBatch) -> list[Transcript]:
        """Wait for a dispatched batch and return its transcripts in order."""
        result = jax.device_get(vars(batch.result))
        return [self._transcript(result, row, language) for row, language in enumerate(batch.languages)]

    def _languages(self, states_BSD: Array) -> list[str]:
        special = self._tokenizer.special
        if not special.is_multilingual:
            return ["en"] * states_BSD.shape[0]
        if self._options.language is not None:
            return [self._options.language] * states_BSD.shape[0]
        best_B = jax.device_get(_detect(self._shape, special, self._params["decoder"], states_BSD))
        codes = list(special.languages)
        return [codes[index] for index in best_B]

    def _transcript(self, result: dict[str, Any], row: int, language: str) -> Transcript:
        length = int(result["length_B"][row])
        tokens = result["tokens_BT"][row, :length].tolist()
        stamped = self._options.return_timestamps
        return Transcript(
            text=self._tokenizer.decode(tokens).strip(),
            text_with_timestamps=self._tokenizer.decode(tokens, with_timestamps=True) if stamped else None,
            tokens=tokens,
            token_logprobs=result["logprobs_BT"][row, : length + 1].tolist(),
            avg_logprob=float(result["avg_logprob_B"][row]),
            no_speech_prob=float(result["no_speech_prob_B"][row]),
            language=language,
        )


def _encode_samples(shape: _Shape, encoder: Params, samples_BW: Array) -> Array:
    mel_BRM = log_mel(samples_BW, num_mel_bins=shape.config.num_mel_bins)
    return bind_encoder(shape.config, shape.compute, encoder)(mel_BRM)[0]


def _search_tokens(
    shape: _Shape,
    rules: DecodingRules,
    max_new_tokens: int,
    decoder: Params,
    states_BSD: Array,
    prompt_BP: Array,
    prompt_length_B: Array,
    token_limit: Array,
) -> GreedyResult:
    return greedy_search(
        bind_decoder(shape.config, shape.compute, decoder),
        states_BSD,
        prompt_BP,
        prompt_length_B,
        rules=rules,
        max_new_tokens=max_new_tokens,
        token_limit=token_limit,
    )


def _most_likely_language(shape: _Shape, special: SpecialTokens, decoder: Params, states_BSD: Array) -> Array:
    bound = bind_decoder(shape.config, shape.compute, decoder)
    return language_probabilities(bound, states_BSD, special).argmax(axis=1)


_encode = jax.jit(_encode_samples, static_argnums=0)
_search = jax.jit(_search_tokens, static_argnums=(0, 1, 2))
_detect = jax.jit(_most_likely_language, static_argnums=(0, 1))
