"""Cache encoder outputs on disk: a frozen encoder gives the same output for a recording in every epoch.

One row of bfloat16 per row of the data set, memory-mapped, so that only what a batch asks for
is read. Three files in a folder::

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

log = logging.getLogger(__name__)

FLUSH_BYTES = 1 << 30
"""States written between two synchronisations with the disk; what an interruption may cost."""


@dataclass(frozen=True, kw_only=True)
class CacheManifest:
    """What a folder of encoder states belongs to.

    Attributes:
        fingerprint: Digest of the encoder's weights and the data set.
        rows: Rows of the data set.
        positions: S, encoder positions of each.
        width: D, features of each position.
        dtype: Type of a feature.
    """

    fingerprint: str
    rows: int
    positions: int
    width: int
    dtype: str = "bfloat16"

    @property
    def num_bytes(self) -> int:
        """Size of ``states.bin``."""
        return self.rows * self.positions * self.width * np.dtype(ml_dtypes.bfloat16).itemsize


class EncoderStateCache:
    """Reads and writes encoder states by row; one process and one writing thread at a time.

    :meth:`has` and :meth:`needs_audio` may be called from any thread: rows only ever become present.

    Args:
        folder: Where the states are kept; made if it does not exist.
        fingerprint: Digest of everything that the states depend on: encoder weights
            (:func:`weights_fingerprint`) and recordings (:meth:`SpeechDataset.fingerprint`).
        rows: Rows of the data set.
        positions: S, positions per row.
        width: D, features per position.

    Raises:
        InputError: If the disk has no room for all rows.
    """

    def __init__(self, folder: Path, *, fingerprint: str, rows: int, positions: int, width: int):
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

    def has(self, indices: Iterable[SupportsIndex]) -> bool:
        """Return whether the states of all these rows are present."""
        return bool(self._done_I[np.fromiter(indices, np.int64)].all())

    def needs_audio(self, index: int) -> bool:
        """Return whether a row must still be encoded; what the pipelines ask before they decode audio."""
        return not self._done_I[index]

    @property
    def complete(self) -> bool:
        """Whether every row is present."""
        return bool(self._done_I.all())

    def read(self, indices: Sequence[SupportsIndex] | np.ndarray) -> Float[np.ndarray, "B S D"]:
        """Return the states of rows.

        Args:
            indices: Rows that are present.

        Returns:
            bfloat16 ``[B, S, D]``, a copy.

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
        """Keep the states of rows; they survive an interruption once :meth:`flush` has run.

        Args:
            indices: B rows, none twice; rows that are present already are written again.
            encoder_out_BSD: Their states; rounded to bfloat16.
        """
        rows = np.asarray(indices, np.int64)
        self._check_rows(rows)
        self._states_ISD[rows] = encoder_out_BSD.astype(ml_dtypes.bfloat16)
        self._done_I[rows] = True
        self._unflushed_bytes += encoder_out_BSD.size * 2
        if self._unflushed_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put everything on the disk: first the states, then the marks that say that they are complete."""
        self._states_ISD.flush()
        self._flushed_I[:] = self._done_I
        self._flushed_I.flush()
        self._unflushed_bytes = 0

    def _check_rows(self, rows: np.ndarray) -> None:
        if len(rows) and rows.min() < 0:  # padding of a last batch, which numpy would take for the last row
            raise ValueError(f"expected row numbers, got {rows.min()}: leave padding out")

    def _matches(self) -> bool:
        """Return whether the folder holds states of this very encoder and data set."""
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
    """Make a file of zeros that owns its place on the disk.

    Writing through a memory map to a file without room ends the process, without an exception.
    """
    with path.open("wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
