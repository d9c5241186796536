"""Windows of 30 s to tokens, in batches on the devices: encoder, language and search.

Short recordings, chunks and the windows of long recordings are all decoded here; what differs is
which windows a batch is made of, and the prompt, the temperature and the seed of each.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.decoding.result import GenerateOutput
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.transcription.decode_fns import DecodeFns, jit_decode_fns, prepared, shape_on
from flax_distil.transcription.logits_processors import logits_processors_for
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts

EncoderOutput = Mapping[str, Array]
"""Encoder states of a batch on the devices: ``{"encoder_out_BSD": …}``, rows of all processes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingRequest:
    """How one window of a batch is decoded.

    Attributes:
        prompt: decoder prompt, whole; see ``Prompts.build``.
        limit: at most this many tokens, if fewer than all windows may have.
        temperature: 0 for the likeliest tokens, or beams.
        seed: of the draws at a temperature.
    """

    prompt: tuple[int, ...]
    limit: int | None = None
    temperature: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingResult:
    """What was decoded of one window.

    Attributes:
        tokens: emitted ids, without prompt and end-of-text; timestamps and a forced beginning included.
        token_logprobs: natural logarithm of each token's probability, 0 of a forced beginning, and of
            end-of-text at the end where it was reached.
        avg_logprob: their sum over the number of tokens plus one.
        no_speech_prob: probability that nothing is spoken, from 0 to 1.
        temperature: of the request.
    """

    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    temperature: float


class PendingBatch(NamedTuple):
    """A batch the devices may still be working on; see ``WhisperGenerator.collect``."""

    requests: tuple[DecodingRequest | None, ...]
    parts: tuple[tuple[GenerateOutput, frozenset[int]], ...]
    """Results of all rows, and which of them count."""


class WhisperGenerator:
    """A Whisper checkpoint ready to decode batches of windows.

    DecodeFns are compiled once per batch size, for prompts with and without previous text and for rows
    with and without a temperature; only those that are used. All decoders of the same shape share them,
    so evaluating new weights of the same student compiles nothing.

    Attributes:
        config: shape of the model.
        params: its whole tree, on the devices.
        decoder_params: its decoder as programs read it: for decoding, in the compute dtype.
        tokenizer: of the checkpoint.
        settings: its suppressed tokens and limits.
        options: what to transcribe into, and how; language and task are those of the checkpoint where none
            were given.
        prompts: builds the prompts of requests.
        partitioner: over the devices.
        max_new_tokens: most tokens per window.
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
        partitioner: Partitioner | None = None,
    ):
        """Bind weights to options; allocates and compiles nothing.

        Args:
            config: shape of the model.
            params: its whole tree, as ``partitioner.device_put`` lays it; on one device, arrays as they are.
                A decoder that is ``to_decode_params`` already is not copied.
            tokenizer: of the checkpoint.
            settings: its suppressed tokens and limits.
            options: language, task, timestamps, search.
            compute: dtype.
            partitioner: over the devices to use; by default the first one.

        Raises:
            InputError: if the options do not fit the vocabulary (a language or a translation
                asked of an English-only model, timestamps of one without them, more beams than
                tokens) or the limit of tokens the model.
        """
        self.partitioner = single_device() if partitioner is None else partitioner
        self.config, self.params = config, params
        options = options.for_checkpoint(settings)
        self.tokenizer, self.settings, self.options = tokenizer, settings, options
        self.prompts = Prompts(tokenizer, options)
        self.shape = shape_on(self.partitioner, config, compute)
        special = tokenizer.special
        if options.return_timestamps and config.vocab_size < special.timestamp_end:
            raise InputError(
                f"timestamps are asked of a model without them: its vocabulary of {config.vocab_size} ends "
                f"before <|30.00|> ({special.timestamp_end - 1}); leave return_timestamps out"
            )
        self.processors = logits_processors_for(
            options, settings, special, positions=config.max_source_positions
        )
        shortest = self.prompts.shortest + len(self.prompts.prefix)
        room = config.max_target_positions - shortest
        if options.max_new_tokens is not None and options.max_new_tokens > room:
            raise InputError(
                f"max_new_tokens {options.max_new_tokens} is too large: the model has room for {room} "
                "tokens after the prompt"
            )
        if options.search.num_beams >= config.vocab_size:
            raise InputError(
                f"num_beams {options.search.num_beams} is not below the vocabulary of {config.vocab_size}"
            )
        self.max_new_tokens = options.max_new_tokens or max(1, min(room, settings.max_length - shortest))

    def warm_up(self, batch_size: int, *, continued: bool = True) -> float:
        """Compile whatever the options can need for batches of this size; return the seconds it took.

        Args:
            batch_size: rows of this process.
            continued: also what only later windows of long recordings need: prompts without the given
                text, or with what was said before.
        """
        start = time.perf_counter()
        states = self.encode_samples(np.zeros((batch_size, self.config.window_samples), np.float32))
        self.warm_up_search(states, batch_size, continued=continued)
        return time.perf_counter() - start

    def warm_up_search(self, states: EncoderOutput, batch_size: int, *, continued: bool = True) -> None:
        """Compile what comes behind the encoder; arguments as those of :meth:`warm_up`."""
        if self.tokenizer.special.is_multilingual and self.options.language is None:
            self.language_probabilities(states)
        temperatures = self.options.temperatures
        for prompt in self._prompts_to_expect(continued):
            for temperature in {min(temperatures), max(temperatures)}:
                request = DecodingRequest(prompt=prompt, limit=1, temperature=temperature)
                self.collect(self.dispatch(states, [request] * batch_size))

    def _prompts_to_expect(self, continued: bool) -> list[tuple[int, ...]]:
        """Return a prompt of every length that prompts are padded to."""
        language = self.options.language or self.prompts.any_language or "en"
        prompts = [self.prompts.build(language, self.prompts.initial)]
        if continued:
            prompts.append(self.prompts.build(language, with_prefix=False))
            if self.options.condition_on_prev_tokens:
                prompts.append(self.prompts.build(language, [0] * MAX_PREVIOUS_TOKENS))
        return list({self._prompt_slots(len(prompt)): prompt for prompt in prompts}.values())

    def encode_samples(self, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
        """Send this process's 16 kHz windows to its devices and encode them; does not wait."""
        samples = self.partitioner.put_batch({"samples_BW": samples_BW})
        return self._fns.encode_samples(self.params["encoder"], samples)

    def encode_features(self, mel_BRM: Float[np.ndarray, "B R M"]) -> EncoderOutput:
        """Do the same from log-mel features of whole windows."""
        features = self.partitioner.put_batch({"mel_BRM": mel_BRM})
        return self._fns.encode_features(self.params["encoder"], features)

    def language_probabilities(self, states: EncoderOutput) -> list[dict[str, float]]:
        """Wait for the probability of each language code, in this process's rows.

        Raises:
            ValueError: if the vocabulary is English-only.
        """
        codes = list(self.tokenizer.special.languages)
        found_BG = self.partitioner.local_rows(self._fns.detect(self.decoder_params, states))
        return [dict(zip(codes, row, strict=True)) for row in found_BG.tolist()]

    def dispatch(self, states: EncoderOutput, requests: Sequence[DecodingRequest | None]) -> PendingBatch:
        """Start the search and return at once.

        Args:
            states: of the batch.
            requests: one for each of this process's rows; None leaves a row idle.

        Raises:
            ValueError: if a prompt leaves no room for a token.
        """
        rows = frozenset(row for row, request in enumerate(requests) if request is not None)
        drawn = frozenset(row for row in rows if requests[row].temperature > 0)  # type: ignore[union-attr]
        if self.options.search.num_beams == 1 and drawn:
            drawn = rows  # one program takes the likeliest tokens of some rows and draws those of others
        parts = [(self._search(states, requests, part), part) for part in (rows - drawn, drawn) if part]
        return PendingBatch(tuple(requests), tuple(parts))

    def collect(self, batch: PendingBatch) -> list[DecodingResult | None]:
        """Wait for a dispatched batch and return what was decoded of each row; None of idle ones."""
        results: list[DecodingResult | None] = [None] * len(batch.requests)
        for part, rows in batch.parts:
            found = self.partitioner.local_rows(vars(part))
            for row in rows:
                request = batch.requests[row]
                assert request is not None
                results[row] = self._result(request, {name: values[row] for name, values in found.items()})
        return results

    def _result(self, request: DecodingRequest, found: Mapping[str, Any]) -> DecodingResult:
        """Return what was decoded of a row, behind its forced beginning."""
        length, limit = int(found["length_B"]), self._limit(request)
        given = self.prompts.prefix[: self.prompts.prefix_length(request.prompt)] if limit else ()
        ended = length < limit
        return DecodingResult(
            tokens=(*given, *found["tokens_BT"][:length].tolist()),
            token_logprobs=(*[0.0] * len(given), *found["logprobs_BT"][: length + ended].tolist()),
            avg_logprob=float(found["avg_logprob_B"]) * ((length + 1) / (len(given) + length + 1)),
            no_speech_prob=float(found["no_speech_prob_B"]),
            temperature=request.temperature,
        )

    def _search(
        self, states: EncoderOutput, requests: Sequence[DecodingRequest | None], rows: frozenset[int]
    ) -> GenerateOutput:
        """Start the search of some rows; the others are idle."""
        asked = [request if row in rows else None for row, request in enumerate(requests)]
        batch = self.partitioner.put_batch(self._search_batch(asked))
        return self._fns.search(self.decoder_params, {**states, **batch})

    def _search_batch(self, requests: Sequence[DecodingRequest | None]) -> dict[str, np.ndarray]:
        """Return what a search is told of its rows, besides their encoder states."""
        anything = next(request for request in requests if request is not None)
        given = [request or dataclasses.replace(anything, limit=0) for request in requests]
        lengths = [len(request.prompt) for request in given]
        slots = self._prompt_slots(max(lengths))
        if max(lengths) > slots:
            raise ValueError(f"a prompt has {max(lengths)} tokens, and {slots} are the most")
        prompt_BP = np.full((len(given), slots), self.tokenizer.special.eot, np.int32)
        for row, request in enumerate(given):
            prompt_BP[row, : lengths[row]] = request.prompt
        limits = [self._limit(request) for request in given]
        batch = {
            "prompt_BP": prompt_BP,
            "prompt_length_B": np.asarray(lengths, np.int32),
            "limit_B": np.asarray(limits, np.int32),
        }
        if self.prompts.prefix:
            prefixes = [self.prompts.prefix_length(request.prompt) for request in given]
            batch["prefix_length_B"] = np.asarray(prefixes, np.int32)
        if any(request.temperature > 0 for request in given):
            batch["temperature_B"] = np.asarray([request.temperature for request in given], np.float32)
            batch["seed_B"] = np.asarray([request.seed for request in given], np.int32)
        return batch

    def _limit(self, request: DecodingRequest) -> int:
        """Return how many tokens a window may have."""
        room = self.config.max_target_positions - len(request.prompt)
        wanted = self.max_new_tokens if request.limit is None else min(request.limit, self.max_new_tokens)
        return min(wanted, room)

    def _prompt_slots(self, longest: int) -> int:
        """Return the length that prompts are padded to: one of three, so three programs at most."""
        prefix = len(self.prompts.prefix)
        for slots in (self.prompts.shortest, self.prompts.shortest + prefix):
            if longest <= slots:
                return slots
        return min(
            self.prompts.shortest + prefix + 1 + MAX_PREVIOUS_TOKENS, self.config.max_target_positions - 1
        )

    @functools.cached_property
    def decoder_params(self) -> Params:  # noqa: D102 - see the class
        return prepared(self.partitioner, self.shape, self.params["decoder"])

    @property
    def _fns(self) -> DecodeFns:
        return jit_decode_fns(
            self.partitioner, self.shape, self.processors, self.options.search, self.max_new_tokens
        )
