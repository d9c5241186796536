"""Peak memory of a step: resident pages above those of the interpreter and its libraries."""

import ctypes
import dataclasses
import gc
import importlib
from pathlib import Path

LIBRARIES = {"flax_distil": "flax_distil.distillation", "transformers": "torch"}


def status_mb(name: str) -> float:
    """Read a size from the kernel's account of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"the kernel does not report {name}: memory is measured on Linux only")


def give_back_freed_pages() -> None:
    """Have the allocator return what is free: what is resident then is what is held."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclasses.dataclass
class StepMemory:
    """Both sides are measured alike: weights, optimizer state, batch and the step's own needs count.

    Attributes:
        imported_mb: resident after importing the framework, with no array made.
        resident_mb: resident between two steps.
    """

    imported_mb: float
    resident_mb: float = 0.0

    @classmethod
    def after_imports(cls, side: str) -> "StepMemory":
        """Import the side's framework and note what it occupies by itself."""
        importlib.import_module(LIBRARIES[side])
        if side == "flax_distil":
            import jax

            importlib.import_module("flax_distil.checkpoints.checkpoint")
            jax.block_until_ready(jax.numpy.zeros(1))
        else:
            from transformers import WhisperForConditionalGeneration  # noqa: F401 (imported to be counted)
        return cls(status_mb("VmRSS"))

    def start(self) -> None:
        """Give freed pages back and restart the kernel's record of the peak.

        What loading and compiling needed for a while is thereby left out, on both sides.
        """
        give_back_freed_pages()
        Path("/proc/self/clear_refs").write_text("5")
        self.resident_mb = status_mb("VmRSS") - self.imported_mb

    def result(self) -> dict[str, float]:
        """Return MB: at the peak of the steps, and between them."""
        return {"peak_mb": status_mb("VmHWM") - self.imported_mb, "between_steps_mb": self.resident_mb}
