"""Write a Hugging Face folder, which transformers loads like its own."""

from pathlib import Path

import numpy as np

from flax_distil.checkpoints.export import DEFAULT_SHARD_SIZE, write_checkpoint
from flax_distil.checkpoints.model_config import EXPORT_DTYPES
from flax_distil.exporting.source import ExportSource

QUANTIZATIONS = EXPORT_DTYPES
"""Element types of the weights, the default first."""


def write(
    source: ExportSource, folder: Path, *, quantization: str, max_shard_size: int = DEFAULT_SHARD_SIZE
) -> None:
    """Write safetensors, configurations and tokenizer.

    Args:
        source: The checkpoint.
        folder: Folder of the export.
        quantization: Element type of the weights: float16, bfloat16 or float32.
        max_shard_size: Maximum number of bytes per weight file.

    Raises:
        InputError: If the disk is too full, or a value does not fit float16.
    """
    write_checkpoint(
        source.read,
        source.config,
        folder,
        files=source.files,
        dtype=np.dtype(quantization),
        max_shard_size=max_shard_size,
    )
