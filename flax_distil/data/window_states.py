"""Encoder outputs kept by what was heard, so that labelling and training encode a window once for both.

A window is known by its samples as 16-bit integers, which is how labelled recordings are stored: training
finds the states whatever rows were filtered, sorted or renamed in between. Each encoder has a folder::

    states.bin      [windows, S, D] bfloat16
    windows.bin     [windows, 16] uint8, digest of each window; written behind its states
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from flax_distil.audio.clip import to_int16
from flax_distil.core.arrays import Float, Int
from flax_distil.core.errors import InputError

_DIGEST_BYTES = 16


class WindowStates:
    """States of windows; one process may add some, and others read what is flushed.

    Args:
        folder: Folder of the states of all encoders; it is made when the first states are added.
        fingerprint: Digest of the weights of the encoder and of how it computes.
        positions: Number S of encoder positions per window.
        width: Number D of features per position.
    """

    def __init__(self, folder: Path, *, fingerprint: str, positions: int, width: int):
        self._folder = Path(folder) / fingerprint
        self._shape = positions, width
        self._row_bytes = positions * width * np.dtype(ml_dtypes.bfloat16).itemsize
        self._places: dict[bytes, int] = {}
        states, windows = self._folder / "states.bin", self._folder / "windows.bin"
        if states.is_file() and windows.is_file():
            digests, whole = windows.read_bytes(), states.stat().st_size // self._row_bytes
            for place in range(min(len(digests) // _DIGEST_BYTES, whole)):
                self._places[digests[place * _DIGEST_BYTES :][:_DIGEST_BYTES]] = place

    def __len__(self) -> int:
        return len(self._places)

    def find(
        self, samples_BW: Int[np.ndarray, "B W"] | Float[np.ndarray, "B W"], rows: Iterable[int]
    ) -> dict[int, Float[np.ndarray, "S D"]]:
        """Return the states of those of some rows that are kept.

        Args:
            samples_BW: Windows at 16 kHz, float32 or 16-bit integers.
            rows: Which of them are looked for.

        Returns:
            Their states as bfloat16 ``[S, D]``, by row.
        """
        if not self._places:
            return {}
        places = {int(row): self._places.get(_digest(samples_BW[row])) for row in rows}
        shape = len(self), *self._shape
        states_ISD = np.memmap(self._folder / "states.bin", dtype=ml_dtypes.bfloat16, mode="r", shape=shape)
        return {row: np.array(states_ISD[place]) for row, place in places.items() if place is not None}

    def add(
        self,
        samples_BW: Int[np.ndarray, "B W"] | Float[np.ndarray, "B W"],
        encoder_out_BSD: Float[np.ndarray, "B S D"],
    ) -> None:
        """Keep the states of windows that are not kept yet, but not of silence, which fills up batches.

        Args:
            samples_BW: Windows at 16 kHz, float32 or 16-bit integers.
            encoder_out_BSD: Their states, which are rounded to bfloat16.

        Raises:
            InputError: If the disk is full.
        """
        new = {_digest(samples_W): row for row, samples_W in enumerate(samples_BW) if samples_W.any()}
        new = {digest: row for digest, row in new.items() if digest not in self._places}
        if not new:
            return
        first = len(self)
        states = np.asarray(encoder_out_BSD[list(new.values())]).astype(ml_dtypes.bfloat16)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_at(self._folder / "states.bin", first * self._row_bytes, states.tobytes())
            _write_at(self._folder / "windows.bin", first * _DIGEST_BYTES, b"".join(new))
        except OSError as error:
            raise InputError(
                f"encoder states cannot be written to {self._folder}: {error.strerror}; name another folder "
                "as encoder_cache_dir, or leave it out"
            ) from error
        self._places |= {digest: first + number for number, digest in enumerate(new)}


def _digest(samples_W: Int[np.ndarray, " W"] | Float[np.ndarray, " W"]) -> bytes:
    integers_W = samples_W if samples_W.dtype == np.int16 else to_int16(samples_W)
    return hashlib.blake2b(np.ascontiguousarray(integers_W).data, digest_size=_DIGEST_BYTES).digest()


def _write_at(path: Path, offset: int, data: bytes) -> None:
    """Write bytes at a place of a file, and nothing behind them."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
