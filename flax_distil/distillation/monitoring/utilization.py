"""Model FLOPs utilization: the share of the devices' peak rate that the model's own operations take."""

import dataclasses

from flax_distil.data.training.batches import Batch
from flax_distil.model.operations import StepWork


class Utilization:
    """Counts the FLOPs of dispatched steps.

    What is computed again in the backward pass does not count, as in PaLM (arXiv 2204.02311, appendix B).
    What is computed for padding does.

    Args:
        work: What a step computes; its numbers of samples and tokens do not matter.
        peak: bfloat16 FLOP per second of all devices together; None if it is not known.
        batch_shards: Number of processes, or groups of them, that read different rows.
    """

    def __init__(self, work: StepWork, *, peak: float | None, batch_shards: int = 1):
        self._work = dataclasses.replace(work, recomputes=False)
        self._peak, self._batch_shards = peak, batch_shards
        self._known: dict[tuple[int, int], float] = {}
        self._flop = 0.0

    def add(self, batch: Batch) -> None:
        """Count a step.

        Args:
            batch: This process's rows of it, on the host.
        """
        shape = batch.labels_BT.shape
        if shape not in self._known:
            work = dataclasses.replace(self._work, batch=shape[0] * self._batch_shards, tokens=shape[1])
            self._known[shape] = sum(work.flop().values())
        self._flop += self._known[shape]

    def take(self, seconds: float) -> float | None:
        """Return the utilization since the last call, from 0 to 1; None if the peak is not known.

        Args:
            seconds: Time that the steps took.
        """
        flop, self._flop = self._flop, 0.0
        return None if self._peak is None else flop / seconds / self._peak
