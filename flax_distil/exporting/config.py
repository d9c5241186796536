"""Configuration of the command ``export``."""

import dataclasses
import re

from flax_distil.checkpoints.hub.config import HubModelConfig, ModelCardConfig
from flax_distil.checkpoints.model_config import EXPORT_DTYPES, ModelConfig
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.storage.output_dir import OutputConfig

_OUTPUT = {
    "output_dir": "Folder to write, here or in a bucket (gs://, s3://).",
    "overwrite_output_dir": "Replace the checkpoint of an earlier run in output_dir; other files stay.",
}

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Convert a checkpoint of any readable format, or one of a training run, to other formats.

    Attributes:
        checkpoint: Training checkpoint to export, of the run whose output_dir is model_name_or_path: latest,
            best (of the evaluations) or the number of a step.
        format: Formats to write, separated by commas: hf (transformers), ct2 (faster-whisper), ggml
            (whisper.cpp), openai (openai-whisper), onnx (Transformers.js, onnxruntime) and mlx (mlx-whisper).
            A single one is written into output_dir itself, several into a subfolder each.
        dtype: Element type of weights that are not quantized: float16, bfloat16 or float32; by default the
            usual one of each format.
        quantization: Quantization of the weights, separated by commas: one word for all formats, or one for
            some of them, such as ct2:int8,ggml:q5_0. By default weights are not quantized, and onnx has them
            both ways.
        max_shard_size: Maximum size of a weight file of the format hf, such as 500MB.
        verify: Recordings, folders of them or patterns. They are transcribed here in float32, and with each
            export in the program that it is for where this is installed; texts and logits are compared. The
            exit status is 1 if a float32 export says something else.

    Raises:
        InputError: If ``checkpoint``, ``dtype`` or ``max_shard_size`` is none of these.
    """

    model: ModelConfig
    checkpoint: str | None = None
    output: OutputConfig = nested(help=_OUTPUT)
    format: list[str] = dataclasses.field(default_factory=lambda: ["hf"])
    dtype: str | None = None
    quantization: list[str] | None = None
    max_shard_size: str = "5GB"
    verify: list[str] | None = None
    hub: HubModelConfig = nested(HubModelConfig())
    card: ModelCardConfig = nested(ModelCardConfig())

    def __post_init__(self) -> None:
        which = self.checkpoint
        if which is not None and which not in ("latest", "best") and not which.isdigit():
            raise InputError(f"checkpoint {which!r} is neither latest, best nor a step")
        if self.dtype is not None and self.dtype not in EXPORT_DTYPES:
            expected = ", ".join(EXPORT_DTYPES)
            raise InputError(f"dtype {self.dtype!r} of the weights is unknown: expected {expected}")
        _ = self.shard_bytes

    @property
    def shard_bytes(self) -> int:
        """``max_shard_size`` as a number of bytes.

        Raises:
            InputError: If it is no positive size.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B|)", self.max_shard_size.strip().upper())
        size = 0 if found is None else int(float(found[1]) * _UNITS[found[2]])
        if size <= 0:
            raise InputError(
                f"max_shard_size {self.max_shard_size!r} is no size: expected one such as 500MB or 5GB"
            )
        return size
