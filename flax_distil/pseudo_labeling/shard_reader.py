"""Read shards as batches of decoded recordings, ahead of the devices."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flax_distil.audio.segmentation import flac_bytes
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Float
from flax_distil.data.config import DurationConfig, SpeakerConfig
from flax_distil.data.decoded_example import TOO_LONG, TOO_SHORT, DurationLimits, SampleError, decode_row
from flax_distil.data.example import Example
from flax_distil.data.fragments import split_fragment
from flax_distil.data.preprocessing.packed_audio import decode_pack
from flax_distil.data.preprocessing.packing import Packer, pack, with_duration
from flax_distil.data.preprocessing.segmentation import cut_rows
from flax_distil.data.skipped import SkippedSamples
from flax_distil.data.training.batches import stack_audio
from flax_distil.pseudo_labeling.shard_plan import LabelShard
from flax_distil.storage.remote_files import is_remote, read_bytes
from flax_distil.storage.retries import RetryPolicy, SourceMissingError

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Batches that are decoded and not yet sent; they may belong to a shard that has not begun."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """What one row of the new data set is made of.

    Attributes:
        order: Position in the shard.
        row: The row of the source, or of the piece that was cut from it; of joined ones the first.
        reference: Reference text, None if there is none.
        audio: Encoded, ``{"bytes", "path"}``.
        seconds: Its length.
    """

    order: int
    row: Example
    reference: str | None
    audio: Mapping[str, Any]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInProgress:
    """A shard whose recordings are being transcribed.

    Attributes:
        shard: Rows of the shard.
        recordings: Number of recordings that cutting and joining made of the rows.
        skipped: Recordings that cannot be used.
    """

    shard: LabelShard
    recordings: int
    skipped: SkippedSamples


class ShardBatch(NamedTuple):
    """Recordings for one call of the program.

    Attributes:
        in_progress: Shard of the recordings.
        recordings: At most as many as the batch has rows; none if nothing in the shard can be read.
        samples_BW: Samples as float32 at 16 kHz, padded to the rows of the batch; None without recordings.
        last: Whether this is the last batch of the shard.
    """

    in_progress: ShardInProgress
    recordings: Sequence[Recording]
    samples_BW: Float[np.ndarray, "B W"] | None
    last: bool


class ShardReader:
    """Cuts, joins, sorts and decodes the rows of shards.

    Args:
        batch_size: Rows of every batch.
        detector: Tells where long recordings may be cut.
        speakers: Whether to join neighbors, and up to what length.
        threads: How many decode.
        policy: When to ask a server again for a recording.
        durations: Which recordings are neither too short nor too long.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        detector: VoiceActivity,
        speakers: SpeakerConfig,
        threads: int,
        policy: RetryPolicy,
        durations: DurationConfig,
    ):
        self._policy = policy
        self._durations = durations
        self._batch_size = batch_size
        self._detector = detector
        self._speakers = speakers
        self._threads = threads

    def batches(self, shards: Iterable[LabelShard]) -> Iterator[ShardBatch]:
        """Yield the batches of shards, one shard after the other, at least one batch of each.

        Recordings of like length come together: they need about as many steps of the search. Which ones
        share a batch depends on their shard alone.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            for shard in shards:
                skipped = SkippedSamples()
                packs = self._packs(shard, skipped, pool)
                in_progress = ShardInProgress(shard=shard, recordings=len(packs), skipped=skipped)
                groups = _group(self._decode(packs, skipped, pool), self._batch_size)
                for group, last in _with_last(groups):
                    recordings = [recording for recording, _ in group]
                    samples = [samples_W for _, samples_W in group]
                    stacked = stack_audio(samples, batch_size=self._batch_size) if samples else None
                    yield ShardBatch(in_progress, recordings, stacked, last)

    def _packs(
        self, shard: LabelShard, skipped: SkippedSamples, pool: ThreadPoolExecutor
    ) -> list[tuple[Example, ...]]:
        """Return the rows that each recording is made of, in the order of the corpus."""
        data = shard.data
        texts = [column for column in (data.text_column, data.label_column) if column]
        fetched = pool.map(self._fetch, (data.row(index) for index in range(len(data))))
        source = (row for row in fetched if self._is_wanted(row, skipped))
        rows = []
        for row in cut_rows(source, detector=self._detector, skipped=skipped, text_columns=texts):
            try:
                rows.append(with_duration(row))
            except SampleError as error:
                skipped.reject(row, error)
        if not self._speakers.concatenate_audio:
            return [(row,) for row in rows]
        has_speakers = data.speaker_column is not None
        # Without speakers the pieces of a recording still name it, and are not joined with others.
        parts = [rows] if has_speakers else [list(part) for _, part in groupby(rows, lambda row: row.speaker)]
        longest = min(self._speakers.max_concatenated_seconds, self._durations.longest)
        return [
            made.rows
            for part in parts
            for made in pack(part, Packer(name=data.name, has_speakers=has_speakers, window_seconds=longest))
        ]

    def _is_wanted(self, row: Example, skipped: SkippedSamples) -> bool:
        """Say whether a recording is neither too short nor too long to be labelled; record it if it is."""
        if self._durations == DurationConfig():
            return True
        low, high = self._durations.min_duration_in_seconds, self._durations.longest
        try:
            seconds = with_duration(row).duration_seconds or 0.0
            if seconds <= low:
                raise SampleError(TOO_SHORT, f"it lasts {seconds:.2f} s, min_duration_in_seconds is {low:g}")
            if seconds > high:
                raise SampleError(TOO_LONG, f"it lasts {seconds:.2f} s, max_duration_in_seconds is {high:g}")
        except SampleError as error:
            skipped.reject(row, error)
            return False
        return True

    def _fetch(self, row: Example) -> Example:
        """Return the row with the bytes of a recording behind an address, which is read several times."""
        audio = row.audio
        if audio is None or audio["bytes"] is not None or not is_remote(audio["path"] or ""):
            return row
        try:
            data = read_bytes(split_fragment(audio["path"])[0], self._policy)
        except SourceMissingError:  # decoding says so
            return row
        return dataclasses.replace(row, audio={**audio, "bytes": data})

    def _decode(
        self, packs: Sequence[tuple[Example, ...]], skipped: SkippedSamples, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Recording, Float[np.ndarray, " W"]]]:
        """Yield what can be decoded, the longest first, and its samples."""
        seconds = [sum(row.duration_seconds or 0.0 for row in rows) for rows in packs]
        orders = sorted(range(len(packs)), key=lambda order: -seconds[order])
        for first in range(0, len(orders), self._batch_size):
            chunk = orders[first : first + self._batch_size]
            decoded = pool.map(lambda order: _decode_recording(order, packs[order], skipped), chunk)
            yield from (found for found in decoded if found is not None)


def _decode_recording(
    order: int, rows: Sequence[Example], skipped: SkippedSamples
) -> tuple[Recording, Float[np.ndarray, " W"]] | None:
    limits = DurationLimits()
    if len(rows) > 1:
        sample = decode_pack(rows, limits, lambda row, error: skipped.reject(row, error))
        if sample is None:
            return None
        first = next(row for row in rows if row.sample_id == sample.sample_id)
    else:
        (first,) = rows
        try:
            sample = decode_row(first, limits)
        except SampleError as error:
            skipped.reject(first, error)
            return None
    assert sample.samples_W is not None
    recording = Recording(
        order=order,
        row=first,
        reference=sample.reference,
        audio=_embed_audio(first.audio)
        if len(rows) == 1 and not _is_fragment(first.audio)
        else {"bytes": flac_bytes(sample.samples_W), "path": None},
        seconds=sample.duration_seconds,
    )
    return recording, sample.samples_W


def _is_fragment(audio: Mapping[str, Any] | None) -> bool:
    """Return whether a recording is a part of its file."""
    return audio is not None and bool(split_fragment(audio["path"] or "")[1])


def _embed_audio(audio: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the audio with its bytes, and of its path only the name."""
    assert audio is not None  # it was decoded
    path = audio["path"]
    data = Path(path).read_bytes() if audio["bytes"] is None else audio["bytes"]
    return {"bytes": data, "path": Path(path).name if path else None}


def _group(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size``, the last one shorter; one that is empty if there is nothing."""
    group: list[T] = []
    empty = True
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group, empty = [], False
    if group or empty:
        yield group


def _with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield each item, and whether it is the last."""
    waiting: list[T] = []
    for item in items:
        if waiting:
            yield waiting.pop(), False
        waiting.append(item)
    for item in waiting:
        yield item, True
