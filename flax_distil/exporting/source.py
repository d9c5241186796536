"""What every format is written from: an architecture, small files, and tensors read one at a time."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from flax_distil.checkpoints.checkpoint import Checkpoint, open_checkpoint
from flax_distil.checkpoints.export import tensor_reader
from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_params import FiniteTensors
from flax_distil.model.config import WhisperConfig


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """A checkpoint whose tensors are read when they are asked for.

    Attributes:
        config: The architecture.
        files: Tokenizer, generation settings and other small files.
        read: Function that returns one tensor by its Hugging Face name, such as
            ``model.decoder.layers.0.fc1.weight``, in the element type of the checkpoint (float32 where that
            is quantized). Nothing is kept, and a value that is not finite is an ``InputError``.
        shapes: Shape of each tensor by its Hugging Face name, in the order of the model. The output
            projection is not among them: Whisper ties it to ``model.decoder.embed_tokens.weight``.
    """

    config: WhisperConfig
    files: CheckpointFiles
    read: Callable[[str], np.ndarray] = dataclasses.field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(repr=False)

    @classmethod
    def from_files(cls, source: str | ModelSource) -> "ExportSource":
        """Open a checkpoint of any kind; its weights stay on the disk until they are read.

        Raises:
            InputError: If ``load_checkpoint`` would raise it before it reads weights.
        """
        opened = open_checkpoint(source)
        return cls(opened.config, opened.files, FiniteTensors(opened.reader).read, _shapes(opened.config))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "ExportSource":
        """Return the source of a model whose parameters are in memory, on whatever devices."""
        read = tensor_reader(checkpoint.params, checkpoint.config)
        return cls(checkpoint.config, checkpoint.files, read, _shapes(checkpoint.config))


def _shapes(config: WhisperConfig) -> dict[str, tuple[int, ...]]:
    return {name: location.shape for name, location in tensor_locations(config).items()}
