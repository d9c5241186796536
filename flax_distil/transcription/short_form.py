"""Recordings of at most 30 s, in batches: log-mel, encoder and search on the devices."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from flax_distil.audio import CHUNK_SAMPLES, log_mel
from flax_distil.core import Array, Float, InputError, Params
from flax_distil.generation import DecodingRules, GreedyResult, greedy_search, language_probabilities
from flax_distil.model import ComputeOptions, WhisperConfig, bind_decoder, bind_encoder, whisper_shapes
from flax_distil.parallel import BATCH, ROWS, Runner, single_device, weight_layout
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
        runner: Runner | None = None,
    ):
        """Bind weights to options; allocates and compiles nothing.

        Args:
            config: shape of the model.
            params: its whole tree, as ``runner.put`` lays it; on one device, arrays as they are.
            tokenizer: of the checkpoint.
            settings: its suppressed tokens and limits.
            options: language, task, timestamps.
            compute: dtype.
            runner: over the devices to use; by default the first one.

        Raises:
            InputError: if the options do not fit the vocabulary (a language or a translation
                asked of an English-only model) or the limit of tokens the model.
        """
        self._runner = single_device() if runner is None else runner
        self._shape = _shape(self._runner, config, compute)
        self._params = params
        self._tokenizer = tokenizer
        self._options = options
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
        self, samples_BW: Float[np.ndarray, "B W"], *, stop_at_once: bool = False
    ) -> DispatchedBatch:
        """Send this process's 16 kHz windows of 30 s to its devices and return at once.

        Only where the language must be detected first does this wait for the encoder.
        """
        samples = self._runner.put_batch({"samples_BW": samples_BW})
        states = self._programs.encode(self._params["encoder"], samples)
        return self.dispatch_states(states, rows=len(samples_BW), stop_at_once=stop_at_once)

    def dispatch_states(
        self, states: Mapping[str, Array], *, rows: int, stop_at_once: bool = False
    ) -> DispatchedBatch:
        """Do the same from encoder states already on the devices.

        Args:
            states: ``{"states_BSD": …}``, rows of all processes.
            rows: how many of them are this process's.
            stop_at_once: emit one token, to compile and no more.
        """
        languages = self._languages(states, rows)
        prompts = [
            self._tokenizer.prompt(
                language if self._tokenizer.special.is_multilingual else None,
                self._options.task,
                self._options.return_timestamps,
            )
            for language in languages
        ]
        asked = self._runner.put_batch(
            {
                "prompt_BP": np.asarray(prompts, np.int32),
                "prompt_length_B": np.full(rows, len(prompts[0]), np.int32),
                "limit_B": np.full(rows, 1 if stop_at_once else self._max_new_tokens, np.int32),
            }
        )
        result = self._programs.search(self._params["decoder"], {**states, **asked})
        return DispatchedBatch(result, languages)

    def collect(self, batch: DispatchedBatch) -> list[Transcript]:
        """Wait for a dispatched batch and return its transcripts in order."""
        result = self._runner.rows(vars(batch.result))
        return [self._transcript(result, row, language) for row, language in enumerate(batch.languages)]

    @property
    def _programs(self) -> "_Programs":
        return _programs(self._runner, self._shape, self._rules, self._max_new_tokens)

    def _languages(self, states: Mapping[str, Array], rows: int) -> list[str]:
        special = self._tokenizer.special
        if not special.is_multilingual:
            return ["en"] * rows
        if self._options.language is not None:
            return [self._options.language] * rows
        best_B = self._runner.rows(self._programs.detect(self._params["decoder"], states))
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


def search_program(
    runner: Runner,
    config: WhisperConfig,
    compute: ComputeOptions,
    rules: DecodingRules,
    *,
    max_new_tokens: int,
) -> Callable[..., GreedyResult]:
    """Return the program of a search, ``(decoder, batch) -> GreedyResult``, as transcribers run it.

    The batch has ``states_BSD``, ``prompt_BP``, ``prompt_length_B`` and ``limit_B``. To look at the program
    ahead of time: nothing is compiled before it is called or lowered.
    """
    return _programs(runner, _shape(runner, config, compute), rules, max_new_tokens).search


def _shape(runner: Runner, config: WhisperConfig, compute: ComputeOptions) -> _Shape:
    specs = runner.weight_specs(whisper_shapes(config))
    return _Shape(config, dataclasses.replace(compute, layout=weight_layout(specs)))


class _Programs(NamedTuple):
    """Compiled once for all transcribers of a shape on the same devices."""

    encode: Callable[..., dict[str, Array]]
    search: Callable[..., GreedyResult]
    detect: Callable[..., Array]


@functools.lru_cache(maxsize=32)
def _programs(runner: Runner, shape: _Shape, rules: DecodingRules, max_new_tokens: int) -> _Programs:
    specs = runner.weight_specs(whisper_shapes(shape.config))

    def compiled(function: Callable[..., Any], weights: str) -> Callable[..., Any]:
        return runner.program(runner.per_device(function, arguments=(specs[weights], BATCH), results=ROWS))

    return _Programs(
        encode=compiled(functools.partial(_encode, shape), "encoder"),
        search=compiled(functools.partial(_search, shape, rules, max_new_tokens), "decoder"),
        detect=compiled(functools.partial(_detect, shape, rules.special), "decoder"),
    )


def _encode(shape: _Shape, encoder: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
    mel_BRM = log_mel(batch["samples_BW"], num_mel_bins=shape.config.num_mel_bins)
    return {"states_BSD": bind_encoder(shape.config, shape.compute, encoder)(mel_BRM)[0]}


def _search(
    shape: _Shape, rules: DecodingRules, max_new_tokens: int, decoder: Params, batch: Mapping[str, Array]
) -> GreedyResult:
    return greedy_search(
        bind_decoder(shape.config, shape.compute, decoder),
        batch["states_BSD"],
        batch["prompt_BP"],
        batch["prompt_length_B"],
        rules=rules,
        max_new_tokens=max_new_tokens,
        limit_B=batch["limit_B"],
    )


def _detect(shape: _Shape, special: SpecialTokens, decoder: Params, batch: Mapping[str, Array]) -> Array:
    bound = bind_decoder(shape.config, shape.compute, decoder)
    return language_probabilities(bound, batch["states_BSD"], special).argmax(axis=1)
