"""Log-mel features of recordings of any length, computed in blocks of 30 s.

A block brings the samples around it, so its frames are those of the whole recording; the maximum that all
of them are brought to is known after the last block. Until then, and while windows are cut from them,
they are kept on the host as plain logarithms: 115 MB an hour with 80 bins.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from flax_distil.audio.constants import CHUNK_FRAMES, CHUNK_SAMPLES, HOP_LENGTH, N_FFT
from flax_distil.core.arrays import Float
from flax_distil.core.prefetch import lookahead

CONTEXT = N_FFT // 2
"""Samples that a frame sees on either side of its centre."""

BLOCK_SAMPLES = CHUNK_SAMPLES + 2 * CONTEXT
"""Samples of a block of 3000 frames, with those around it."""

BlockProgram = Callable[[Float[np.ndarray, "B W"]], Callable[[], Float[np.ndarray, "B R M"]]]
"""Starts ``log10_mel`` of a batch of blocks, and returns what waits for it."""


@dataclasses.dataclass(frozen=True)
class LongMel:
    """Features of a whole recording.

    Attributes:
        log10_RM: Logarithms of one frame for every whole hop.
        peak: The largest of them, and of the frames after the end that still see samples.
    """

    log10_RM: Float[np.ndarray, "R M"]
    peak: float

    def window(self, start: int, frames: int, *, length: int = CHUNK_FRAMES) -> Float[np.ndarray, "length M"]:
        """Return ``length`` frames of features as the encoder takes them; after ``frames`` they are 0.

        Equal to a window of ``whisper.log_mel_spectrogram`` with 30 s of silence after the recording.
        """
        window_RM = np.zeros((length, self.log10_RM.shape[1]), np.float32)
        content_RM = np.maximum(self.log10_RM[start : start + frames], np.float32(self.peak - 8.0))
        window_RM[:frames] = (content_RM + 4.0) / 4.0
        return window_RM

    def loudest(self, start: int, frames: int) -> float:
        """Return the largest logarithm of a window, whose beginning must lie in the recording."""
        return float(self.log10_RM[start : start + frames].max())


def long_log_mel(
    samples_W: Float[np.ndarray, " W"], program: BlockProgram, *, rows: int, num_mel_bins: int
) -> LongMel:
    """Compute the features of a recording, a few blocks at a time.

    Args:
        samples_W: Mono samples at 16 kHz, in [-1, 1].
        program: Computes a batch of blocks; one batch is under way while the next is cut.
        rows: Blocks of a batch.
        num_mel_bins: 80, or 128 for large-v3 and its kin.
    """
    frames = len(samples_W) // HOP_LENGTH
    seen = -(-(len(samples_W) + CONTEXT) // HOP_LENGTH)  # frames that see a sample
    log10_RM = np.empty((frames, num_mel_bins), np.float32)
    peak = -10.0  # of silence

    def keep(start: int, blocks_BRM: Float[np.ndarray, "B R M"]) -> None:
        nonlocal peak
        for block, block_RM in enumerate(blocks_BRM):
            first = start + block * CHUNK_FRAMES
            if first < seen:
                peak = max(peak, float(block_RM[: seen - first].max()))
            if first < frames:
                log10_RM[first : first + CHUNK_FRAMES] = block_RM[: frames - first]

    batches = _batches(samples_W, rows, seen)
    for start, blocks in lookahead((start, program(blocks_BW)) for start, blocks_BW in batches):
        keep(start, blocks())
    return LongMel(log10_RM, peak)


def _batches(
    samples_W: Float[np.ndarray, " W"], rows: int, frames: int
) -> Iterator[tuple[int, Float[np.ndarray, "B W"]]]:
    """Yield the first frame of each batch of blocks, and the blocks."""
    for start in range(0, frames, rows * CHUNK_FRAMES):
        blocks_BW = np.zeros((rows, BLOCK_SAMPLES), np.float32)
        for row in range(rows):
            first = (start + row * CHUNK_FRAMES) * HOP_LENGTH - CONTEXT
            held_W = samples_W[max(0, first) : max(0, first + BLOCK_SAMPLES)]
            offset = max(0, -first)
            blocks_BW[row, offset : offset + len(held_W)] = held_W
        if start == 0:  # what lies before the beginning mirrors what follows it
            blocks_BW[0, :CONTEXT] = blocks_BW[0, 2 * CONTEXT : CONTEXT : -1]
        yield start, blocks_BW
