"""Settings of the threads that read ahead of the accelerator."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from flax_distil.core import InputError
from flax_distil.data.batches import LABEL_BUCKETS

NeedsAudio = Callable[[int], bool]
"""Row number to whether its recording must be decoded; False where its encoder states are kept."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How batches are read.

    Args:
        batch_size: Samples per batch, over all local devices.
        num_threads: Threads that decode audio; None takes the machine's cores, at most 16.
        prefetch_batches: Batches decoded ahead of the step that uses them.
        label_buckets: Target lengths that batches are padded to, ascending.
    """

    batch_size: int
    num_threads: int | None = None
    prefetch_batches: int = 2
    label_buckets: tuple[int, ...] = LABEL_BUCKETS

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_threads", "prefetch_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    @property
    def threads(self) -> int:
        """Threads that decode audio."""
        return self.num_threads or min(16, os.cpu_count() or 1)

    @property
    def samples_ahead(self) -> int:
        """Samples decoded before they are asked for."""
        return max(self.threads, self.prefetch_batches * self.batch_size)
