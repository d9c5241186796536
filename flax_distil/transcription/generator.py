"""Windows of 30 s to tokens, in batches on the devices: encoder, language detection and decode loop.

Short recordings, chunks and the windows of long recordings are all decoded here. They differ in which windows
a batch is made of, and in the prompt, the temperature and the seed of each.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.errors import InputError
from flax_distil.decoding.continuous import EndedWindows, RowsInProgress
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.transcription.decode_fns import (
    DecodeFns,
    ModelShape,
    SearchFns,
    decoder_params,
    jit_decode_fns,
)
from flax_distil.transcription.decoding_request import (
    DecodingRequest,
    DecodingResult,
    PendingBatch,
    RowSteps,
)
from flax_distil.transcription.logits_processors import logits_processors_for
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.request_arrays import RequestArrays

EncoderOutput = Mapping[str, Array]
"""Encoder output of a batch on the devices: ``{"encoder_out_BSD": …}``, with the rows of all processes."""


EncoderCache = Callable[[np.ndarray, Callable[[np.ndarray], EncoderOutput]], EncoderOutput]


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
        row_steps: How many steps the rows of the decoder took, and how many of them were of use.
        encoder_cache: Returns the encoder output of windows that were encoded before, and otherwise has them
            encoded by the function that it is given; None encodes all windows.
    """

    encoder_cache: EncoderCache | None = None

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
        self._arrays = RequestArrays(config, self.prompts, special.eot, self.max_new_tokens)
        self.row_steps = RowSteps()
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
        return list({self._arrays.prompt_slots(len(prompt)): prompt for prompt in prompts}.values())

    def encode_samples(self, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
        """Send this process's 16 kHz windows to its devices and encode them; does not wait."""
        if self.encoder_cache is not None:
            return self.encoder_cache(samples_BW, self._encode_samples)
        return self._encode_samples(samples_BW)

    def _encode_samples(self, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
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
            batch = self.partitioner.put_batch(self._arrays.of_batch(asked))
            parts.append((self._search.generate({**encoder_out, **batch}), part))
        return PendingBatch(tuple(requests), tuple(parts))

    def collect(self, batch: PendingBatch) -> list[DecodingResult | None]:
        """Wait for a batch and return what was decoded of each row; None for idle ones."""
        results: list[DecodingResult | None] = [None] * len(batch.requests)
        for part, rows in batch.parts:
            found = self.partitioner.local_rows(vars(part))
            self._count(found, sorted(rows))
            self.row_steps += self._row_steps(found)
            for row in rows:
                request = batch.requests[row]
                assert request is not None
                results[row] = self._result(request, {name: values[row] for name, values in found.items()})
        return results

    def free_rows(
        self, encoder_out: EncoderOutput, requests: Sequence[DecodingRequest | None]
    ) -> RowsInProgress:
        """Return free rows of a decoder for windows such as these, as many as there are of them."""
        batch = self.partitioner.put_batch(
            self._arrays.of_batch(requests, least_slots=self._arrays.first_slots)
        )
        return self._search.free_rows({**encoder_out, **batch})

    def decode_queue(
        self,
        rows: RowsInProgress,
        encoder_out: EncoderOutput,
        requests: Sequence[DecodingRequest | None],
        tickets: Sequence[int],
        *,
        most_left: int,
    ) -> tuple[RowsInProgress, EndedWindows]:
        """Start to decode windows in rows as they become free, and return at once.

        Args:
            rows: From :meth:`free_rows`, or after the last call; not to be used again.
            encoder_out: Encoder output of the windows.
            requests: One for each row of it; all at temperature 0, or all above it.
            tickets: What each window is known by, at least 0; -1 where there is no request.
            most_left: Number of rows of each device that may then be in use; with 0 all windows end.
        """
        arrays = self._arrays.of_batch(requests, least_slots=self._arrays.first_slots)
        arrays["ticket_B"] = np.asarray(tickets, np.int32)
        arrays["most_left_B"] = np.full(len(tickets), most_left, np.int32)
        return self._search.decode_queue(rows, {**encoder_out, **self.partitioner.put_batch(arrays)})

    def collect_ended(
        self, ended: EndedWindows, requests: Mapping[int, DecodingRequest]
    ) -> dict[int, DecodingResult]:
        """Wait for a call of :meth:`decode_queue`, and return what was decoded of each window that has ended.

        Args:
            ended: The windows.
            requests: The requests of all tickets in use.
        """
        tickets = self.partitioner.local_rows(ended.ticket_R)
        found = self.partitioner.local_rows(vars(ended.output))
        ran, used = self.partitioner.local_rows(ended.row_steps_2).reshape(-1, 2).sum(axis=0)
        self.row_steps += RowSteps(int(ran), int(used))
        rows = np.flatnonzero(tickets >= 0).tolist()
        self._count(found, rows)
        return {
            int(tickets[row]): self._result(
                requests[int(tickets[row])], {name: values[row] for name, values in found.items()}
            )
            for row in rows
        }

    def _count(self, found: Mapping[str, np.ndarray], rows: Sequence[int]) -> None:
        """Note what was found in rows of a batch; the assisted generator keeps statistics."""

    def _row_steps(self, found: Mapping[str, np.ndarray]) -> RowSteps:
        """Return the steps of a batch that was decoded to its end, in which a device waits for all its rows.

        The first token comes with the prompt; ends of text count where they were emitted.
        """
        steps_B = np.maximum((found["logprobs_BT"] != 0).sum(axis=1) - 1, 0)
        by_device = steps_B.reshape(self.partitioner.local_batch_shards, -1)
        return RowSteps(int(by_device.max(axis=1).sum()) * by_device.shape[1], int(steps_B.sum()))

    def _result(self, request: DecodingRequest, found: Mapping[str, Any]) -> DecodingResult:
        """Return what was decoded of a row, behind its forced beginning."""
        length, limit = int(found["length_B"]), self._arrays.limit(request)
        given = self.prompts.prefix[: self.prompts.prefix_length(request.prompt)] if limit else ()
        ended = length < limit
        return DecodingResult(
            tokens=(*given, *found["tokens_BT"][:length].tolist()),
            token_logprobs=(*[0.0] * len(given), *found["logprobs_BT"][: length + ended].tolist()),
            avg_logprob=float(found["avg_logprob_B"]) * ((length + 1) / (len(given) + length + 1)),
            no_speech_prob=float(found["no_speech_prob_B"]),
            temperature=request.temperature,
        )

    @functools.cached_property
    def decoder_params(self) -> Params:  # noqa: D102 - see the class
        return decoder_params(self.partitioner, self.shape, self.params["decoder"])

    @functools.cached_property
    def _fns(self) -> DecodeFns:
        return jit_decode_fns(
            self.partitioner, self.shape, self.processors, self.options.search, self.max_new_tokens
        )

    @functools.cached_property
    def _search(self) -> SearchFns:
        return self._fns.search.of_weights(self.decoder_params)
