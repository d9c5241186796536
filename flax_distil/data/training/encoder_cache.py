"""Cache encoder outputs on disk, because a frozen encoder has the same output for a recording in every epoch.

The cache has one row of bfloat16 per row of the data set. It is memory-mapped, so that only the rows of a
batch are read. There are three files in a folder::

    states.bin      [rows, S, D] bfloat16, its whole size reserved at the start
    done.bin        [rows] uint8, 1 where the states are written
    manifest.json   what the states belong to; written last, so a half-made folder is not taken
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import SupportsIndex

import ml_dtypes
import numpy as np

from flax_distil.core.arrays import Bool, Float
from flax_distil.core.errors import InputError
from flax_distil.data.window_states import WindowStates

log = logging.getLogger(__name__)

FLUSH_BYTES = 1 << 30
"""Bytes of states that are written between two syncs with the disk; an interruption may lose as many."""


@dataclass(frozen=True, kw_only=True)
class CacheManifest:
    """Description of the encoder and data set to which a folder of encoder states belongs.

    Attributes:
        fingerprint: Digest of the weights of the encoder and of the data set.
        rows: Number of rows of the data set.
        positions: Number S of encoder positions of each row.
        width: Number D of features of each position.
        dtype: Element type of the features.
    """

    fingerprint: str
    rows: int
    positions: int
    width: int
    dtype: str = "bfloat16"

    @property
    def num_bytes(self) -> int:
        """Size of ``states.bin`` in bytes."""
        return self.rows * self.positions * self.width * np.dtype(ml_dtypes.bfloat16).itemsize


class EncoderStateCache:
    """Reads and writes encoder states by row; only one process may use it, and only one thread may write.

    Any thread may call :meth:`has` and :meth:`needs_audio`, because rows that are present stay present.

    Args:
        folder: Folder of the states, which is created if absent.
        fingerprint: Digest of everything that the states depend on: encoder weights
            (:func:`weights_fingerprint`) and recordings (:meth:`SpeechDataset.fingerprint`).
        rows: Number of rows of the data set.
        positions: Number S of encoder positions per row.
        width: Number D of features per position.
        windows: States that labelling kept, of which :meth:`copy_known` takes what it finds.

    Raises:
        InputError: If the disk has not enough room for all rows.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        rows: int,
        positions: int,
        width: int,
        windows: WindowStates | None = None,
    ):
        self._folder = Path(folder)
        self._manifest = CacheManifest(fingerprint=fingerprint, rows=rows, positions=positions, width=width)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._matches():
            self._create()
        shape = (rows, positions, width)
        self._states_ISD = np.memmap(
            self._folder / "states.bin", dtype=ml_dtypes.bfloat16, mode="r+", shape=shape
        )
        self._flushed_I = np.memmap(self._folder / "done.bin", dtype=np.uint8, mode="r+", shape=(rows,))
        self._done_I: Bool[np.ndarray, " I"] = np.array(self._flushed_I, np.bool_)
        self._unflushed_bytes = 0
        self._windows = windows

    def has(self, indices: Iterable[SupportsIndex]) -> bool:
        """Return whether the states of all these rows are present."""
        return bool(self._done_I[np.fromiter(indices, np.int64)].all())

    def needs_audio(self, index: int) -> bool:
        """Return whether a row must still be encoded; pipelines call this before they decode audio."""
        return not self._done_I[index]

    @property
    def complete(self) -> bool:
        """Whether every row is present."""
        return bool(self._done_I.all())

    def read(self, indices: Sequence[SupportsIndex] | np.ndarray) -> Float[np.ndarray, "B S D"]:
        """Return the states of rows.

        Args:
            indices: Numbers of rows that are present.

        Returns:
            A copy of the states as bfloat16 ``[B, S, D]``.

        Raises:
            KeyError: If a row is not present.
        """
        rows = np.asarray(indices, np.int64)
        self._check_rows(rows)
        absent = rows[~self._done_I[rows]]
        if len(absent):
            raise KeyError(f"no encoder states for row {absent[0]}: write them first")
        return np.asarray(self._states_ISD[rows])

    def write(
        self, indices: Sequence[SupportsIndex] | np.ndarray, encoder_out_BSD: Float[np.ndarray, "B S D"]
    ) -> None:
        """Write the states of rows, which survive an interruption after :meth:`flush`.

        Args:
            indices: Numbers of B different rows; rows that are already present are written again.
            encoder_out_BSD: States of the rows, which are rounded to bfloat16.
        """
        rows = np.asarray(indices, np.int64)
        self._check_rows(rows)
        self._states_ISD[rows] = encoder_out_BSD.astype(ml_dtypes.bfloat16)
        self._done_I[rows] = True
        self._unflushed_bytes += encoder_out_BSD.size * 2
        if self._unflushed_bytes >= FLUSH_BYTES:
            self.flush()

    def copy_known(
        self, indices: np.ndarray, samples_BW: np.ndarray, missing_B: Bool[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Write the rows whose windows labelling has encoded, and return which are still missing.

        Args:
            indices: Number of each row.
            samples_BW: Their windows at 16 kHz, float32 or 16-bit integers.
            missing_B: Which of them have no states yet.
        """
        if self._windows is None:
            return missing_B
        known = self._windows.find(samples_BW, np.flatnonzero(missing_B).tolist())
        for row, states_SD in known.items():
            self.write(indices[[row]], states_SD[None])
        return missing_B & ~np.isin(np.arange(len(missing_B)), list(known))

    def flush(self) -> None:
        """Sync everything to the disk: first the states, and then the marks of complete rows."""
        self._states_ISD.flush()
        self._flushed_I[:] = self._done_I
        self._flushed_I.flush()
        self._unflushed_bytes = 0

    def _check_rows(self, rows: np.ndarray) -> None:
        if len(rows) and rows.min() < 0:  # padding of a last batch, which numpy would treat as the last row
            raise ValueError(f"expected row numbers, got {rows.min()}: leave padding out")

    def _matches(self) -> bool:
        """Return whether the folder holds states of the same encoder and data set."""
        path = self._folder / "manifest.json"
        if not path.is_file():
            return False
        found = None
        with contextlib.suppress(json.JSONDecodeError):
            found = json.loads(path.read_text())
        states, done = self._folder / "states.bin", self._folder / "done.bin"
        if (
            found == asdict(self._manifest)
            and states.is_file()
            and states.stat().st_size == self._manifest.num_bytes
            and done.is_file()
            and done.stat().st_size == self._manifest.rows
        ):
            return True
        log.warning(
            "encoder states in %s belong to another encoder, data set or version: they are made again",
            self._folder,
        )
        return False

    def _create(self) -> None:
        for name in ("manifest.json", "states.bin", "done.bin"):
            (self._folder / name).unlink(missing_ok=True)
        needed, free = self._manifest.num_bytes, shutil.disk_usage(self._folder).free
        if needed > free:
            raise InputError(
                f"no room for encoder states in {self._folder}: {needed} bytes are needed for "
                f"{self._manifest.rows} samples and {free} are free; name a folder on a larger disk, "
                "or train without them"
            )
        _reserve(self._folder / "states.bin", needed)
        _reserve(self._folder / "done.bin", self._manifest.rows)
        unfinished = self._folder / "manifest.json.tmp"
        unfinished.write_text(json.dumps(asdict(self._manifest), indent=2))
        unfinished.replace(self._folder / "manifest.json")


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose space on the disk is allocated.

    If the disk is full, writing through a memory map to a file without allocated space kills the process.
    """
    with path.open("wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
