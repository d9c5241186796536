"""Batch after batch of windows through one decoder, whose rows go on from batch to batch."""

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.core.arrays import Array
from flax_distil.decoding.continuous import EndedWindows, RowsInProgress
from flax_distil.parallel.partitioner import ROWS
from flax_distil.transcription.decoding_request import DecodingRequest, DecodingResult, PendingBatch
from flax_distil.transcription.fallback import (
    choose_attempt,
    decode_with_fallback,
    fallback_enabled,
    needs_fallback,
)
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator

T = TypeVar("T")

Results = list[DecodingResult | None]
"""A result for each request of a batch, None where there was none."""

Seed = Callable[[Any, int, int], int]
"""Returns the random seed of another attempt: from what belongs to a batch, a row, and the attempt's number.
"""

MOST_WAITING = 4
"""So many batches may wait for windows that failed, until these are decoded though rows are idle. The encoder
output of each is kept.
"""


class EncodedBatch(NamedTuple):
    """Windows that the encoder has heard, or is about to.

    Attributes:
        given: Whatever belongs to the batch.
        encoder_out: Encoder output of the batch.
        requests: One for each of this process's rows; None leaves a row out.
    """

    given: Any
    encoder_out: EncoderOutput | None
    requests: Sequence[DecodingRequest | None]


@dataclasses.dataclass(eq=False)
class _Waiting:
    """A batch whose windows are being decoded, or that waits for the batches before it.

    Attributes:
        batch: The batch; None when all its windows have ended, so that its encoder output is not kept.
        attempts: What was decoded of each window.
        left: Rows of windows that may still be decoded.
        made: What was made of it when all had ended.
    """

    batch: EncodedBatch | None
    attempts: list[list[DecodingResult]]
    left: set[int]
    made: Any = None


class _Window(NamedTuple):
    """A window that is being decoded."""

    waiting: _Waiting
    row: int
    request: DecodingRequest


@dataclasses.dataclass
class _Lane:
    """The decoder of all windows at one attempt, and thus at one temperature.

    Attributes:
        rows: Its rows on the devices; None before the first batch, and after the last.
        size: How many they are.
        failed: Windows that wait for this attempt, by their batches.
    """

    rows: RowsInProgress | None = None
    size: int = 0
    failed: deque[tuple[_Waiting, list[int]]] = dataclasses.field(default_factory=deque)


class _Call(NamedTuple):
    """A call that the devices may still be working on: a queue, or a batch that is decoded to its end."""

    attempt: int
    ended: EndedWindows | None = None
    whole: tuple[_Waiting, PendingBatch] | None = None


class WindowStream:
    """Decodes batches of windows; a row of the decoder that has ended takes the next window at once.

    Results are those of ``WhisperGenerator.dispatch`` and ``collect``, to the token. The rows are as many as
    those of the first batch. All requests have the temperature of the first attempt.

    Windows that fail a threshold wait for others that do, of any batch: each further attempt has a decoder of
    its own, whose rows are filled in the same way.
    """

    def __init__(self, generator: WhisperGenerator, *, seed: Seed | None = None):
        """Begin without rows.

        Args:
            generator: The checkpoint.
            seed: Seeds further attempts, which are made if the options ask for them; None makes none.
        """
        self._generator = generator
        self._seed = seed if fallback_enabled(generator.options) else None
        attempts = 1 if self._seed is None else len(generator.options.temperatures)
        self._lanes = [_Lane() for _ in range(attempts)]
        self._windows: dict[int, _Window] = {}
        self._next = 0

    def decode(self, batches: Iterable[EncodedBatch], make: Callable[[Any, Results], T]) -> Iterator[T]:
        """Yield what is made of each batch, in turn.

        Args:
            batches: The batches; the next one is taken before the results of the last are waited for. One
                without requests means that no other is there for now: what is under way is finished.
            make: Takes what belongs to a batch, and a result for each of its requests, as soon as all of its
                windows have ended, which may be before those of an earlier batch.
        """
        waiting: deque[_Waiting] = deque()
        calls: deque[_Call] = deque()
        for batch, is_last in _mark_last(batches):
            rows = [row for row, request in enumerate(batch.requests) if request is not None]
            kept = batch if self._seed is not None else batch._replace(encoder_out=None)
            waiting.append(_Waiting(kept, [[] for _ in batch.requests], set(rows)))
            if rows:
                calls.append(self._send(0, waiting[-1], batch, is_last=is_last))
            while len(calls) > (0 if is_last else 1):
                self._receive(calls.popleft())
            ends_all = is_last or sum(len(one.left) > 0 for one in waiting) > MOST_WAITING
            for attempt in range(1, len(self._lanes)):
                calls += self._send_failed(attempt, ends_all=ends_all)
                while ends_all and calls:
                    self._receive(calls.popleft())
            for one in waiting:
                if one.batch is not None and not one.left:
                    one.made, one.batch = make(one.batch.given, self._results(one)), None
            while waiting and waiting[0].batch is None:
                yield waiting.popleft().made

    def _results(self, ended: _Waiting) -> Results:
        """Return the attempt that counts of each window."""
        options, tokenizer = self._generator.options, self._generator.tokenizer
        return [choose_attempt(tried, options, tokenizer) for tried in ended.attempts]

    def _send_failed(self, attempt: int, *, ends_all: bool) -> Iterator[_Call]:
        """Send windows that wait for an attempt, but of the last batch only if they are all to be ended."""
        failed = self._lanes[attempt].failed
        while len(failed) > (0 if ends_all else 1):
            waiting, rows = failed.popleft()
            assert waiting.batch is not None
            asked = [
                self._again(waiting.batch, row, attempt) if row in rows else None
                for row in range(len(waiting.batch.requests))
            ]
            batch = waiting.batch._replace(requests=asked)
            yield self._send(attempt, waiting, batch, is_last=ends_all and not failed)

    def _again(self, batch: EncodedBatch, row: int, attempt: int) -> DecodingRequest:
        """Return the request of another attempt."""
        request = batch.requests[row]
        assert request is not None
        assert self._seed is not None
        return dataclasses.replace(
            request,
            temperature=self._generator.options.temperatures[attempt],
            seed=self._seed(batch.given, row, attempt),
        )

    def _send(self, attempt: int, waiting: _Waiting, batch: EncodedBatch, *, is_last: bool) -> _Call:
        """Start to decode windows of a batch, up to their ends if it is the last one."""
        generator, lane = self._generator, self._lanes[attempt]
        assert batch.encoder_out is not None
        if lane.rows is None and (is_last or not can_stream(generator, len(batch.requests))):
            pending = generator.dispatch(batch.encoder_out, batch.requests)
            return _Call(attempt, whole=(waiting, pending))
        lane.size = lane.size or len(batch.requests)
        encoder_out, requests = self._padded(batch, lane.size)
        tickets = [self._ticket(waiting, row, request) for row, request in requests]
        asked = [request for _, request in requests]
        rows = generator.free_rows(encoder_out, asked) if lane.rows is None else lane.rows
        local = lane.size // generator.partitioner.local_batch_shards
        lane.rows, ended = generator.decode_queue(
            rows, encoder_out, asked, tickets, most_left=0 if is_last else local
        )
        if is_last:
            lane.rows, lane.size = None, 0
        return _Call(attempt, ended=ended)

    def _ticket(self, waiting: _Waiting, row: int, request: DecodingRequest | None) -> int:
        """Return what a window is known by on the devices."""
        if request is None:
            return -1
        ticket, self._next = self._next, (self._next + 1) % 2**31
        self._windows[ticket] = _Window(waiting, row, request)
        return ticket

    def _receive(self, call: _Call) -> None:
        """Wait for a call, and note its results."""
        generator = self._generator
        if call.ended is not None:
            requests = {ticket: window.request for ticket, window in self._windows.items()}
            for ticket, result in generator.collect_ended(call.ended, requests).items():
                window = self._windows.pop(ticket)
                self._note(call.attempt, window.waiting, window.row, result)
        if call.whole is not None:
            waiting, pending = call.whole
            results = generator.collect(pending)
            if generator.partitioner.shard_count > 1 and self._seed is not None:
                self._decode_again_on_all(waiting, results)
                return
            for row, found in enumerate(results):
                if found is not None:
                    self._note(call.attempt, waiting, row, found)

    def _note(self, attempt: int, waiting: _Waiting, row: int, result: DecodingResult) -> None:
        """Note what was decoded of a window; if it failed, it waits for the next attempt."""
        waiting.attempts[row].append(result)
        options, tokenizer = self._generator.options, self._generator.tokenizer
        if attempt + 1 == len(self._lanes) or not needs_fallback(result, options, tokenizer):
            waiting.left.discard(row)
            return
        failed = self._lanes[attempt + 1].failed
        for other, rows in failed:
            if other is waiting:
                rows.append(row)
                return
        failed.append((waiting, [row]))

    def _decode_again_on_all(self, waiting: _Waiting, results: list[DecodingResult | None]) -> None:
        """Make all attempts at the windows of a batch, as all processes that share the devices do."""
        batch, seed = waiting.batch, self._seed
        assert batch is not None
        assert batch.encoder_out is not None
        assert seed is not None
        found = decode_with_fallback(
            self._generator,
            batch.encoder_out,
            batch.requests,
            results,
            seed=lambda row, attempt: seed(batch.given, row, attempt),
        )
        waiting.attempts[:] = [[] if result is None else [result] for result in found]
        waiting.left.clear()

    def _padded(
        self, batch: EncodedBatch, size: int
    ) -> tuple[EncoderOutput, list[tuple[int, DecodingRequest | None]]]:
        """Return a batch with as many rows as the decoder has; on each device idle ones lie at the end."""
        partitioner, rows = self._generator.partitioner, list(enumerate(batch.requests))
        assert batch.encoder_out is not None
        if len(rows) == size:
            return batch.encoder_out, rows
        shards = partitioner.local_batch_shards
        own, wanted = len(rows) // shards, size // shards
        padded: list[tuple[int, DecodingRequest | None]] = []
        for start in range(0, len(rows), own):
            padded += [*rows[start : start + own], *[(0, None)] * (wanted - own)]
        pad = partitioner.jit(functools.partial(_pad_rows, wanted), in_specs=(ROWS,), out_specs=ROWS)
        return pad(dict(batch.encoder_out)), padded


def can_stream(generator: WhisperGenerator, rows: int) -> bool:
    """Say whether rows of a batch are filled while others go on.

    They are not where each device has a single row, and where the devices belong to several processes: these
    would have to agree on which windows have ended.
    """
    partitioner = generator.partitioner
    return partitioner.shard_count == 1 and rows > partitioner.local_batch_shards


def warm_up_streams(generator: WhisperGenerator, sizes: Sequence[int], *, continued: bool = False) -> float:
    """Compile whatever streams of batches can need, and return the seconds it took.

    Args:
        generator: The checkpoint.
        sizes: Numbers of rows that batches may have; all but the last batch of a stream have the most.
        continued: See ``WhisperGenerator.warm_up``.
    """
    began, largest = time.perf_counter(), max(sizes)
    request = DecodingRequest(
        prompt=generator.prompts.build(generator.prompts.any_language or "en", generator.prompts.initial),
        limit=1,
    )
    batches = []
    for size in sorted(sizes, reverse=True):
        silence_BW = np.zeros((size, generator.config.window_samples), np.float32)
        encoder_out = generator.encode_samples(silence_BW)
        generator.warm_up_generate(encoder_out, size, continued=continued)
        batches += [EncodedBatch(size, encoder_out, [request] * size)] * (2 if size == largest else 1)
    if can_stream(generator, largest):
        temperatures = generator.options.temperatures[: None if fallback_enabled(generator.options) else 1]
        for temperature in {min(temperatures), max(temperatures)}:
            asked = dataclasses.replace(request, temperature=temperature)
            list(
                WindowStream(generator).decode(
                    (batch._replace(requests=[asked] * batch.given) for batch in batches),
                    lambda given, _: given,
                )
            )
    return time.perf_counter() - began


def _mark_last(batches: Iterable[EncodedBatch]) -> Iterator[tuple[EncodedBatch, bool]]:
    """Yield each batch, and whether its windows are decoded to their end before the next one begins.

    They are where no other batch is there, or where the next one has more rows than the decoder has then.
    """
    present: EncodedBatch | None = None
    rows = 0
    for batch in batches:
        if present is not None:
            is_last = not batch.requests or len(batch.requests) > rows
            yield present, is_last
            rows = 0 if is_last else rows
        present, rows = batch, rows or len(batch.requests)
    if present is not None:
        yield present, True


def _pad_rows(rows: int, encoder_out: dict[str, Array]) -> dict[str, Array]:
    def pad(leaf: Array) -> Array:
        return jnp.pad(leaf, [(0, rows - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)])

    return jax.tree.map(pad, encoder_out)
