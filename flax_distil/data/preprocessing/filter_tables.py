"""Filter a whole table in several processes, and cache the verdicts on disk for the next start."""

import hashlib
import logging
import multiprocessing
import os
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_distil.core.arrays import Int, UInt
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import DURATION_COLUMN, SpeechDataset
from flax_distil.data.decoded_example import MALFORMED, SampleError
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filters import REASONS, RowFilter
from flax_distil.data.skipped import SkippedSamples

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

BATCH_ROWS = 1000
"""Number of rows that a process filters at a time."""

MANY_ROWS = 20_000
"""Number of rows from which on verdicts are cached on disk, and by default computed in several processes."""

MOST_WORKERS = 16
"""Maximum number of processes where their number is not given."""

KEPT = len(REASONS)
"""Verdict for a row that is kept; other verdicts are indices of :data:`REASONS`."""


@dataclass(frozen=True, kw_only=True)
class FilterResult:
    """Result of filtering a table.

    Attributes:
        kept: Numbers of the kept rows in order, int64.
        total: Number of all rows.
        dropped: Number of dropped rows by reason; each row counts for its first reason.
        longest_label: Number of tokens of the longest kept label, without a previous text; None if the filter
            does not limit labels.
    """

    kept: Int[np.ndarray, " kept"]
    total: int
    dropped: dict[str, int] = field(default_factory=dict)
    longest_label: int | None = None

    def summary(self) -> str:
        """Return one line for the log, such as ``kept 90 of 100 samples (dropped 10 too long)``."""
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return f"kept {len(self.kept)} of {self.total} samples" + (f" (dropped {dropped})" if dropped else "")


def filter_rows(
    data: SpeechDataset,
    row_filter: RowFilter,
    *,
    report: DropReport | None = None,
    skipped: SkippedSamples | None = None,
    workers: int | None = None,
    cache_dir: str | Path | None = None,
) -> FilterResult:
    """Apply a filter to every row of a table.

    Verdicts for large tables are cached on disk, by the contents of the rows and the settings of the filter.

    Args:
        data: The training set.
        row_filter: Filter that was made for this table.
        report: Report that also counts the rows.
        skipped: Collector of rows with impossible values.
        workers: Number of processes; by default one, and for many rows the number of the machine's cores.
        cache_dir: Folder of the verdicts; by default that of ``datasets``.

    Returns:
        The kept rows, and the number of dropped rows for each reason.

    Raises:
        InputError: If no row is kept.
    """
    verdicts, lengths = _verdicts(data, row_filter, workers, cache_dir)
    kept = np.flatnonzero(verdicts == KEPT)
    counts = np.bincount(verdicts, minlength=KEPT + 1)
    if report is not None:
        _count_verdicts(report, data, verdicts, counts)
    if skipped is not None:
        texts = data.without_audio()
        for index in sorted(data.problems):
            row = texts.row(index)
            skipped.reject(row, SampleError(MALFORMED, row.problem or ""), data_set=data.name)
    dropped = {reason: int(count) for reason, count in zip(REASONS, counts, strict=False) if count}
    result = FilterResult(
        kept=kept.astype(np.int64),
        total=len(data),
        dropped=dict(sorted(dropped.items(), key=lambda item: -item[1])),
        longest_label=int(lengths[kept].max(initial=0)) if row_filter.measures else None,
    )
    if not len(kept):
        raise InputError(
            f"no sample of data set {data.name!r} is left: {result.summary()}; loosen the filters"
        )
    return result


Verdicts = tuple[UInt[np.ndarray, " rows"], UInt[np.ndarray, " rows"]]
"""Verdict of each row as uint8, and number of tokens of the labels of kept rows as uint16."""


def _verdicts(
    data: SpeechDataset, row_filter: RowFilter, workers: int | None, cache_dir: str | Path | None
) -> Verdicts:
    if len(data) < MANY_ROWS:
        return _compute_verdicts(data, row_filter, workers or 1)
    path = _folder(cache_dir) / f"{_digest(data, row_filter)}.npz"
    try:
        with path.open("rb") as file, np.load(file) as found:
            log.info("%s: the verdicts of its filters are found in %s", data.name, path)
            return found["verdicts"], found["lengths"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or damaged
    made = _compute_verdicts(data, row_filter, workers or min(os.cpu_count() or 1, MOST_WORKERS))
    _save_verdicts(path, made)
    return made


def _compute_verdicts(data: SpeechDataset, row_filter: RowFilter, workers: int) -> Verdicts:
    batches = list(range(0, len(data), BATCH_ROWS))
    if min(workers, len(batches)) < 2:
        parts = [_batch_verdicts(row_filter, batch) for batch in _batches(data, row_filter)]
    else:
        with ProcessPoolExecutor(
            min(workers, len(batches)),
            mp_context=multiprocessing.get_context("spawn"),  # a fork would lose JAX threads
            initializer=_init_worker,
            initargs=(row_filter,),
        ) as pool:
            parts = list(pool.map(_verdicts_in_worker, _batches(data, row_filter)))
    return (
        np.concatenate([np.frombuffer(verdicts, np.uint8) for verdicts, _ in parts]),
        np.concatenate([np.asarray(lengths, np.uint16) for _, lengths in parts]),
    )


_row_filter: RowFilter | None = None
"""Filter of a worker process."""


def _init_worker(row_filter: RowFilter) -> None:
    global _row_filter
    _row_filter = row_filter


def _verdicts_in_worker(batch: "_Batch") -> tuple[bytes, list[int]]:
    assert _row_filter is not None
    return _batch_verdicts(_row_filter, batch)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Consecutive rows in the form in which they are sent to a worker.

    Attributes:
        references: :attr:`Example.reference` of each row.
        labels: :attr:`Example.label` of each row.
        durations: :attr:`Example.duration_seconds` of each row.
        problems: Sentence about a row that cannot be used, by its index in the batch.
        values: Values of further columns by name.
    """

    references: list[str | None]
    labels: list[str | None]
    durations: list[float | None]
    problems: dict[int, str]
    values: dict[str, list[Any]]

    def rows(self) -> Iterator[Example]:
        for index, (reference, label, duration) in enumerate(
            zip(self.references, self.labels, self.durations, strict=True)
        ):
            yield Example(
                index=index,
                sample_id="",
                audio=None,
                reference=reference,
                label=label,
                speaker=None,
                duration_seconds=duration,
                values={name: values[index] for name, values in self.values.items()},
                problem=self.problems.get(index),
            )


def _batch_verdicts(row_filter: RowFilter, batch: _Batch) -> tuple[bytes, list[int]]:
    found = [row_filter.drop_reason_and_length(row) for row in batch.rows()]
    verdicts = bytes(KEPT if reason is None else REASONS.index(reason) for reason, _ in found)
    return verdicts, [length for _, length in found]


def _batches(data: SpeechDataset, row_filter: RowFilter) -> Iterator[_Batch]:
    used = _used_columns(data, row_filter)
    first = 0
    for table in _tables(data, used):
        columns = {name: table.column(name).to_pylist() for name in used}
        nothing: list[Any] = [None] * len(table)
        yield _Batch(
            references=nothing if data.text_column is None else columns[data.text_column],
            labels=columns.get(data.label_column or data.text_column or "", nothing),
            durations=columns.get(DURATION_COLUMN, nothing),
            problems={
                index - first: data.problems[index]
                for index in range(first, first + len(table))
                if index in data.problems
            }
            if data.problems
            else {},
            values={name: columns[name] for name in row_filter.columns if name in columns},
        )
        first += len(table)


def _used_columns(data: SpeechDataset, row_filter: RowFilter) -> list[str]:
    wanted = [data.text_column, data.label_column, DURATION_COLUMN, *row_filter.columns]
    return [name for name in dict.fromkeys(wanted) if name is not None and data.has_column(name)]


def _tables(data: SpeechDataset, columns: list[str]) -> Iterator["pyarrow.Table"]:
    """Yield the given columns as tables of some rows each."""
    if columns:
        yield from data.table.select_columns(columns).with_format("arrow").iter(BATCH_ROWS)
        return
    import pyarrow

    for first in range(0, len(data), BATCH_ROWS):
        yield pyarrow.table({"": pyarrow.nulls(min(BATCH_ROWS, len(data) - first))})


def _digest(data: SpeechDataset, row_filter: RowFilter) -> str:
    """Return a digest of the settings and of all values that the verdicts depend on."""
    import pyarrow

    digest = hashlib.blake2b(row_filter.fingerprint().encode(), digest_size=16)
    digest.update(repr((data.text_column, data.label_column, sorted(data.problems.items()))).encode())
    for table in _tables(data, _used_columns(data, row_filter)):
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
            writer.write_table(table.replace_schema_metadata(None).combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


def _folder(cache_dir: str | Path | None) -> Path:
    import datasets

    return Path(cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser() / "flax_distil_filters"


def _save_verdicts(path: Path, made: Verdicts) -> None:
    """Write verdicts completely or not at all; if the disk is full, the next start computes them again."""
    verdicts, lengths = made
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            np.savez_compressed(unfinished, verdicts=verdicts, lengths=lengths)
            os.replace(unfinished, path)
    except OSError as error:
        log.warning("the verdicts of the filters are not kept in %s: %s", path.parent, error)


def _count_verdicts(
    report: DropReport,
    data: SpeechDataset,
    verdicts: UInt[np.ndarray, " rows"],
    counts: Int[np.ndarray, " reasons"],
) -> None:
    seconds = np.array([value or 0.0 for value in data.durations()], np.float64)
    sums = np.bincount(verdicts, weights=seconds, minlength=KEPT + 1)
    for verdict, reason in enumerate([*REASONS, None]):
        if counts[verdict]:
            report.add(data.name, reason, float(sums[verdict]), rows=int(counts[verdict]))
