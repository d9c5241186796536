"""The interface of every checkpoint format: tensors by Hugging Face name, read one at a time."""

import abc
import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape and element type of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: str


class CheckpointReader(abc.ABC):
    """Reads the tensors of a checkpoint on disk one at a time, by their Hugging Face names."""

    origin: str
    """Name of the checkpoint in messages."""

    @property
    @abc.abstractmethod
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor, by canonical name."""

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Return one tensor, without keeping it."""
