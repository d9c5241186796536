"""Choose or average the channels of a recording."""

import numpy as np

from flax_distil.core.arrays import Float

CANCELLED = 0.1
"""Channels cancel each other out where their mean has less than a tenth of the energy that the mean of
unrelated channels would have."""


class Downmix:
    """Mixes blocks of several channels to mono, one after the other.

    The mean of the channels is taken. Where one channel is the inverse of another (a cable was
    wired the wrong way round), the mean would be silence, so the louder channel is taken.

    Attributes:
        cancelled: Whether that was so in any block so far.
    """

    def __init__(self, channel: int | None = None):
        """Choose.

        Args:
            channel: Take this channel alone, counted from 0; None for the mean.
        """
        self._channel = channel
        self.cancelled = False

    def __call__(self, block_WC: Float[np.ndarray, "W C"]) -> Float[np.ndarray, " W"]:
        """Return one channel of a block; ``channel`` must be below C."""
        if self._channel is not None:
            return np.ascontiguousarray(block_WC[:, self._channel])
        if block_WC.shape[1] == 1:
            return block_WC[:, 0]
        mean_W = block_WC.mean(axis=1)
        energies_C = np.einsum("wc,wc->c", block_WC, block_WC, dtype=np.float64)
        unrelated = energies_C.sum() / len(energies_C) ** 2
        if np.vdot(mean_W, mean_W) < CANCELLED * unrelated:
            self.cancelled = True
            return np.ascontiguousarray(block_WC[:, np.argmax(energies_C)])
        return mean_W
