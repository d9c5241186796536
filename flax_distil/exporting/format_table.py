"""The table of the formats that a checkpoint can be exported to."""

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from flax_distil.core.errors import InputError
from flax_distil.exporting.source import ExportSource


@runtime_checkable
class Writer(Protocol):
    """The module of a format."""

    QUANTIZATIONS: tuple[str, ...]
    """Element types and quantizations of the weights, the default first."""

    def write(self, source: ExportSource, folder: Path, *, quantization: str) -> None:
        """Write the files of the format into an empty folder, one tensor at a time.

        Args:
            source: The checkpoint.
            folder: An empty folder.
            quantization: One of :attr:`QUANTIZATIONS`.

        Raises:
            InputError: If the checkpoint cannot be written in this format.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One format of an export.

    Attributes:
        module: Address of its :class:`Writer` below ``flax_distil.exporting``.
        runtime: Program that the format is for, in words.
        weights: Patterns of the names of its weight files; an export removes those of an earlier one.
        package: Package that the writer imports; None if it needs none.
        extra: Extra of flax-distil that installs the package.
        needs_tokenizer: Whether the format holds the tokenizer, so that there must be one.
        verification: Address of the module below ``flax_distil.exporting`` that runs exports in the
            program, a ``RuntimeModule``; None if there is none.
        verification_package: Package that this module imports.
    """

    module: str
    runtime: str
    weights: tuple[str, ...]
    package: str | None = None
    extra: str | None = None
    needs_tokenizer: bool = True
    verification: str | None = None
    verification_package: str | None = None

    @property
    def writer(self) -> Writer:
        """The module that writes the format, imported when it is first asked for."""
        return cast(Writer, importlib.import_module(f"flax_distil.exporting.{self.module}"))


FORMATS = {
    "hf": Format(
        module="formats.huggingface",
        runtime="transformers",
        weights=("model*.safetensors*",),
        needs_tokenizer=False,
        verification="verification.huggingface",
        verification_package="torch",
    ),
    "ct2": Format(
        module="formats.ctranslate2",
        runtime="faster-whisper",
        weights=("model.bin",),
        package="ctranslate2",
        extra="ctranslate2",
        verification="verification.ctranslate2",
        verification_package="ctranslate2",
    ),
    "mlx": Format(
        module="formats.mlx",
        runtime="mlx-whisper",
        weights=("weights.safetensors",),
        needs_tokenizer=False,
        verification="verification.mlx",
        verification_package="mlx_whisper",
    ),
    "ggml": Format(
        module="formats.ggml",
        runtime="whisper.cpp",
        weights=("ggml-model*.bin",),
        verification="verification.ggml",
        verification_package="pywhispercpp",
    ),
    "openai": Format(
        module="formats.openai",
        runtime="openai-whisper",
        weights=("model.pt",),
        needs_tokenizer=False,
        verification="verification.openai",
        verification_package="whisper",
    ),
    "onnx": Format(
        module="onnx.writer",
        runtime="Transformers.js, onnxruntime",
        weights=("onnx/*.onnx", "onnx/*.onnx_data*"),
        package="onnx",
        extra="onnx",
        verification="verification.onnx",
        verification_package="onnxruntime",
    ),
}
"""All formats by the names that ``--format`` takes."""


def check_installed(name: str) -> None:
    """Check that the package that a format is written with is installed; it is not imported.

    Raises:
        InputError: If it is not. The message names the extra that installs it.
    """
    kind = FORMATS[name]
    if kind.package is not None and importlib.util.find_spec(kind.package) is None:
        raise InputError(
            f"format {name} is written with {kind.package}, which is not installed: "
            f'run pip install "flax-distil[{kind.extra}]", or leave the format out'
        )
