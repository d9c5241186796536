"""Read the weights, quantized or not, of CTranslate2 Whisper folders (those of faster-whisper).

Queries, keys and values are rows of one matrix. Quantized matrices hold ``round(value · scale)``. Their
scales are in ``…_scale``: one per row for int8 (127 / largest magnitude of the row), and one for the whole
matrix for int16.

Source: ``ctranslate2/specs/model_spec.py`` and ``src/models/model.cc`` of CTranslate2 4.8.
"""

import dataclasses
import functools
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.ctranslate2_index import FormatError, Variable, read_index
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.core.errors import InputError
from flax_distil.model.config import WhisperConfig

MODEL_NAME = "model.bin"

_HEAD_DIM = 64  # of every published Whisper; used where the file does not say

_PARTS: tuple[tuple[str, str], ...] = (
    ("model.encoder.conv1", "encoder/conv1"),
    ("model.encoder.conv2", "encoder/conv2"),
    ("model.encoder.embed_positions.weight", "encoder/position_encodings/encodings"),
    ("model.encoder.layer_norm", "encoder/layer_norm"),
    ("model.decoder.embed_tokens.weight", "decoder/embeddings/weight"),
    ("model.decoder.embed_positions.weight", "decoder/position_encodings/encodings"),
    ("model.decoder.layer_norm", "decoder/layer_norm"),
)
_LAYER_PARTS: tuple[tuple[str, str], ...] = (
    ("self_attn_layer_norm", "self_attention/layer_norm"),
    ("self_attn.out_proj", "self_attention/linear_1"),
    ("encoder_attn_layer_norm", "attention/layer_norm"),
    ("encoder_attn.q_proj", "attention/linear_0"),
    ("encoder_attn.out_proj", "attention/linear_2"),
    ("fc1", "ffn/linear_0"),
    ("fc2", "ffn/linear_1"),
    ("final_layer_norm", "ffn/layer_norm"),
)
_FUSED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("self_attn", "self_attention/linear_0", ("q", "k", "v")),
    ("encoder_attn", "attention/linear_1", ("k", "v")),
)
_SIZED: Mapping[str, int] = {
    "decoder/embeddings/weight": 2,
    "encoder/conv1/weight": 3,
    "encoder/layer_0/ffn/linear_0/weight": 2,
    "decoder/layer_0/ffn/linear_0/weight": 2,
    "encoder/position_encodings/encodings": 2,
    "decoder/position_encodings/encodings": 2,
}
"""Arrays from which the architecture is read, with their numbers of axes."""

_SUFFIXES = (("weight", "weight"), ("bias", "bias"), ("weight", "gamma"), ("bias", "beta"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Rows of a variable that form one Hugging Face tensor: piece ``index`` of ``count`` equal pieces."""

    variable: str
    index: int = 0
    count: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTranslate2Reader(CheckpointReader):
    """Reads the arrays of a CTranslate2 Whisper model by their Hugging Face names.

    Attributes:
        path: Path of its ``model.bin``.
        origin: Name of the checkpoint in messages.
    """

    path: Path
    origin: str

    @classmethod
    def open(cls, folder: Path, *, origin: str | None = None) -> "CTranslate2Reader":
        """Open a CTranslate2 folder and read the list of its arrays.

        Raises:
            InputError: If ``model.bin`` is truncated or not a CTranslate2 Whisper model.
        """
        source = cls(path=folder / MODEL_NAME, origin=origin or str(folder))
        _ = source._variables
        return source

    @functools.cached_property
    def _variables(self) -> dict[str, Variable]:
        try:
            with self.path.open("rb") as file:
                return read_index(file, size=self.path.stat().st_size)
        except (struct.error, UnicodeDecodeError, FormatError) as error:
            raise InputError(f"{self.path} is not a complete CTranslate2 Whisper model: {error}") from error
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}): check the file") from error

    @functools.cached_property
    def _parts(self) -> dict[str, _Part]:
        """Rows of variables by the Hugging Face names of their tensors."""
        known = {
            name: part for name, part in possible_parts(self._layers) if part.variable in self._variables
        }
        used = {part.variable for part in known.values()}
        # Other variables keep their own names, so that they are reported as unexpected.
        others = {
            name: _Part(variable=name)
            for name, variable in self._variables.items()
            if name not in used and variable.shape and not name.endswith("_scale")
        }
        tied = "decoder/projection/weight"
        return known | {{tied: "proj_out.weight"}.get(name, name): part for name, part in others.items()}

    @property
    def _layers(self) -> dict[str, int]:
        """Number of layers of encoder and decoder, counted from ``layer_0`` on without gaps."""
        counts = {}
        for side in ("encoder", "decoder"):
            found = {name.split("/")[1] for name in self._variables if name.startswith(f"{side}/layer_")}
            counts[side] = next(count for count in range(len(found) + 1) if f"layer_{count}" not in found)
        return counts

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """All tensors by name; quantized ones have the type float32, to which reading converts them."""
        specs = {}
        for name, part in self._parts.items():
            variable = self._variables[part.variable]
            rows, *rest = variable.shape or (1,)
            quantized = f"{part.variable}_scale" in self._variables
            dtype = "float32" if quantized else variable.dtype.name
            specs[name] = TensorSpec(shape=(rows // part.count, *rest), dtype=dtype)
        return specs

    def read(self, name: str) -> np.ndarray:
        """Return one tensor, dequantized."""
        part = self._parts[name]
        rows = (self._variables[part.variable].shape or (1,))[0] // part.count
        chosen = slice(part.index * rows, (part.index + 1) * rows)
        values = self._rows(part.variable, chosen)
        scale_name = f"{part.variable}_scale"
        if scale_name not in self._variables:
            return values
        per_row = len(self._variables[scale_name].shape) > 0
        scale = self._rows(scale_name, chosen if per_row else slice(0, 1)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):  # the caller checks that values are finite
            return values.astype(np.float32) / scale.reshape(-1, *(1,) * (values.ndim - 1))

    def _rows(self, name: str, rows: slice) -> np.ndarray:
        variable = self._variables[name]
        shape = variable.shape or (1,)
        width = int(np.prod(shape[1:], dtype=np.int64))
        values = np.fromfile(
            self.path,
            variable.dtype,
            count=(rows.stop - rows.start) * width,
            offset=variable.offset + rows.start * width * variable.dtype.itemsize,
        )
        return values.reshape(-1, *shape[1:])

    def config(self) -> WhisperConfig:
        """Return the architecture that the shapes of the arrays imply; the format has no field for it.

        Raises:
            InputError: If an array that is needed is missing, or gives a size that no Whisper model has.
        """
        shapes = {name: variable.shape for name, variable in self._variables.items()}
        lacking = [name for name, rank in _SIZED.items() if len(shapes.get(name, ())) != rank]
        if lacking:
            raise InputError(
                f"{self.path} lacks {lacking[0]!r} with {_SIZED[lacking[0]]} axes: is it a CTranslate2 "
                "Whisper model?"
            )
        vocab_size, d_model = shapes["decoder/embeddings/weight"]
        values = {
            "vocab_size": vocab_size,
            "num_mel_bins": shapes["encoder/conv1/weight"][1],
            "d_model": d_model,
            "encoder_layers": self._layers["encoder"],
            "decoder_layers": self._layers["decoder"],
            "encoder_attention_heads": self._heads("encoder", d_model),
            "decoder_attention_heads": self._heads("decoder", d_model),
            "encoder_ffn_dim": shapes["encoder/layer_0/ffn/linear_0/weight"][0],
            "decoder_ffn_dim": shapes["decoder/layer_0/ffn/linear_0/weight"][0],
            "max_source_positions": shapes["encoder/position_encodings/encodings"][0],
            "max_target_positions": shapes["decoder/position_encodings/encodings"][0],
        }
        return WhisperConfig.from_huggingface(values, name=str(self.path))

    def _heads(self, side: str, d_model: int) -> int:
        name = f"{side}/num_heads"
        return int(self._rows(name, slice(0, 1))[0]) if name in self._variables else d_model // _HEAD_DIM


def possible_parts(layers: Mapping[str, int]) -> list[tuple[str, _Part]]:
    """Expand the tables above to all Hugging Face names and the variables in which they would be."""
    plain = list(_PARTS)
    parts: list[tuple[str, _Part]] = []
    for side, count in layers.items():
        for layer in range(count):
            theirs, ours = f"model.{side}.layers.{layer}", f"{side}/layer_{layer}"
            plain += [(f"{theirs}.{name}", f"{ours}/{variable}") for name, variable in _LAYER_PARTS]
            for name, variable, letters in _FUSED:
                for index, letter in enumerate(letters):
                    piece = {"index": index, "count": len(letters)}
                    target = f"{theirs}.{name}.{letter}_proj"
                    parts.append((f"{target}.weight", _Part(variable=f"{ours}/{variable}/weight", **piece)))
                    if letter != "k":  # Whisper's keys have no bias, and the file holds zeros
                        parts.append((f"{target}.bias", _Part(variable=f"{ours}/{variable}/bias", **piece)))
    for name, variable in plain:
        if name.endswith(".weight"):
            parts.append((name, _Part(variable=variable)))
        else:
            parts += [(f"{name}.{end}", _Part(variable=f"{variable}/{source}")) for end, source in _SUFFIXES]
    return parts
