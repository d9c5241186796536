"""Windows of 30 s to tokens, in batches on the devices: encoder, language detection and decode loop.

Short recordings, chunks and the windows of long recordings are all decoded here. They differ in which windows
a batch is made of, and in the prompt, the temperature and the seed of each.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.transcription.decode_fns import DecodeFns, ModelShape, decoder_params, jit_decode_fns
from flax_distil.transcription.decoding_request import DecodingRequest, DecodingResult, PendingBatch
from flax_distil.transcription.logits_processors import logits_processors_for
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts

EncoderOutput = Mapping[str, Array]
"""Encoder output of a batch on the devices: ``{"encoder_out_BSD": …}``, with the rows of all processes."""


class WhisperGenerator:
    """A Whisper checkpoint that decodes batches of windows.

    Functions are compiled once per batch size, for prompts with and without previous text and for rows with
    and without a temperature; only those that are used. All generators of the same shape share them, so
    evaluating new weights of the same student compiles nothing.

    Attributes:
        config: Shape of the model.
        params: Its whole tree, on the devices.
        decoder_params: Its decoder in the layout of decoding and in the compute dtype.
        tokenizer: Tokenizer of the checkpoint.
        settings: The checkpoint's suppressed tokens and limits.
        options: What to transcribe into, and how. Language and task are those of the checkpoint where none
            were given.
        prompts: Builds the prompts of requests.
        partitioner: The devices.
        shape: The model without its weights.
        processors: Which tokens may be emitted.
        max_new_tokens: Maximum number of tokens per window.
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
            config: Shape of the model.
            params: Its whole tree, as ``partitioner.device_put`` lays it; on one device, arrays as they are.
                A decoder in the layout of decoding is not copied.
            tokenizer: Tokenizer of the checkpoint.
            settings: The checkpoint's suppressed tokens and limits.
            options: Language, task, timestamps, search.
            compute: How the model computes.
            partitioner: The devices to use; by default the first one.

        Raises:
            InputError: If the options do not fit the vocabulary (a language or a translation asked of an
                English-only model, timestamps asked of a model without them, more beams than tokens), or if
                the limit of tokens does not fit the model.
        """
        self.partitioner = single_device() if partitioner is None else partitioner
        self.config, self.params = config, params
        options = options.for_checkpoint(settings)
        self.tokenizer, self.settings, self.options = tokenizer, settings, options
        self.prompts = Prompts(tokenizer, options)
        self.shape = ModelShape.on(self.partitioner, config, compute)
        special = tokenizer.special
        if options.return_timestamps and config.vocab_size < special.timestamp_end:
            raise InputError(
                f"timestamps are asked of a model without them: its vocabulary of {config.vocab_size} ends "
                f"before <|30.00|> ({special.timestamp_end - 1}); leave return_timestamps out"
            )
        self.processors = logits_processors_for(
            options, settings, special, positions=config.max_source_positions
        )
        self.max_new_tokens = self._token_limit()
        if options.search.num_beams >= config.vocab_size:
            raise InputError(
                f"num_beams {options.search.num_beams} is not below the vocabulary of {config.vocab_size}"
            )

    def _token_limit(self) -> int:
        """Return the maximum number of tokens per window."""
        shortest, asked = self.prompts.shortest + len(self.prompts.prefix), self.options.max_new_tokens
        room = self.config.max_target_positions - shortest
        if asked is not None and asked > room:
            raise InputError(
                f"max_new_tokens {asked} is too large: the model has room for {room} tokens after the prompt"
            )
        return asked or max(1, min(room, self.settings.max_length - shortest))

    def warm_up(self, batch_size: int, *, continued: bool = True) -> float:
        """Compile whatever the options can need for batches of this size; return the seconds it took.

        Args:
            batch_size: Number of rows of this process.
            continued: Compile also what only later windows of long recordings need: prompts without the given
                text, or with the text before the window.
        """
        start = time.perf_counter()
        silence_BW = np.zeros((batch_size, self.config.window_samples), np.float32)
        self.warm_up_generate(self.encode_samples(silence_BW), batch_size, continued=continued)
        return time.perf_counter() - start

    def warm_up_generate(
        self, encoder_out: EncoderOutput, batch_size: int, *, continued: bool = True
    ) -> None:
        """Compile what comes behind the encoder; arguments as those of :meth:`warm_up`."""
        if self.tokenizer.special.is_multilingual and self.options.language is None:
            self.language_probabilities(encoder_out)
        temperatures = self.options.temperatures
        for prompt in self._prompts_to_expect(continued):
            for temperature in {min(temperatures), max(temperatures)}:
                request = DecodingRequest(prompt=prompt, limit=1, temperature=temperature)
                self.collect(self.dispatch(encoder_out, [request] * batch_size))

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

    def language_probabilities(self, encoder_out: EncoderOutput) -> list[dict[str, float]]:
        """Wait for the probability of each language code, in this process's rows.

        Raises:
            ValueError: If the vocabulary is English-only.
        """
        codes = list(self.tokenizer.special.languages)
        found_BG = self.partitioner.local_rows(self._fns.detect_language(self.decoder_params, encoder_out))
        return [dict(zip(codes, row, strict=True)) for row in found_BG.tolist()]

    def dispatch(
        self, encoder_out: EncoderOutput, requests: Sequence[DecodingRequest | None]
    ) -> PendingBatch:
        """Start to decode a batch and return at once.

        Args:
            encoder_out: Encoder output of the batch.
            requests: One for each of this process's rows; None leaves a row idle.

        Raises:
            ValueError: If a prompt leaves no room for a token.
        """
        rows = frozenset(row for row, request in enumerate(requests) if request is not None)
        sampled = frozenset(row for row in rows if requests[row].temperature > 0)  # type: ignore[union-attr]
        if self.options.search.num_beams == 1 and sampled:
            sampled = (
                rows  # one function samples tokens of some rows and takes the most likely ones of others
            )
        parts = []
        for part in filter(None, (rows - sampled, sampled)):
            asked = [request if row in part else None for row, request in enumerate(requests)]
            batch = self.partitioner.put_batch(self._batch_arrays(asked))
            parts.append((self._generate({**encoder_out, **batch}), part))
        return PendingBatch(tuple(requests), tuple(parts))

    def collect(self, batch: PendingBatch) -> list[DecodingResult | None]:
        """Wait for a batch and return what was decoded of each row; None for idle ones."""
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

    def _batch_arrays(self, requests: Sequence[DecodingRequest | None]) -> dict[str, np.ndarray]:
        """Return the fields of ``GenerateInputs`` besides the encoder output."""
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
        """Return the length that prompts are padded to: one of three, so at most three are compiled."""
        prefix = len(self.prompts.prefix)
        for slots in (self.prompts.shortest, self.prompts.shortest + prefix):
            if longest <= slots:
                return slots
        return min(
            self.prompts.shortest + prefix + 1 + MAX_PREVIOUS_TOKENS, self.config.max_target_positions - 1
        )

    @functools.cached_property
    def decoder_params(self) -> Params:  # noqa: D102 - see the class
        return decoder_params(self.partitioner, self.shape, self.params["decoder"])

    @functools.cached_property
    def _fns(self) -> DecodeFns:
        return jit_decode_fns(
            self.partitioner, self.shape, self.processors, self.options.search, self.max_new_tokens
        )

    @property
    def _generate(self) -> Callable[[Mapping[str, Array]], Any]:
        """The decode loop with its weights, a function of the batch."""
        return functools.partial(self._fns.generate, self.decoder_params)
