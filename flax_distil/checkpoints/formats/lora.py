"""Read a model with a LoRA adapter of PEFT, whose low-rank products are added to the weights of its base.

A tensor of the base is merged when it is read, in float32::

    W' = W + scale * B @ A                       A [r, in], B [out, r]
    W' = m * W' / |W'| for each output           DoRA, with the magnitudes m [out]

Source: arXiv 2106.09685, section 4.1; arXiv 2402.09353, equation 5; ``peft/tuners/lora/layer.py`` of PEFT.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.checkpoints.formats.archives.torch_archive import ArchivedTensor, TorchArchive
from flax_distil.checkpoints.formats.finite import all_finite
from flax_distil.checkpoints.formats.huggingface import SafetensorsReader
from flax_distil.checkpoints.formats.lora_config import LoraConfig
from flax_distil.checkpoints.formats.mapping import canonical_name
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line

WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
"""Files of the weights of an adapter, the first of which is read."""

_PREFIX = "base_model.model."
_KINDS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_embedding_A": "embedding_A",
    "lora_embedding_B": "embedding_B",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
_PAIRS = ({"A", "B"}, {"A", "B", "magnitude"}, {"embedding_A", "embedding_B"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraReader(CheckpointReader):
    """Reads the tensors of a base with an adapter merged into them.

    Attributes:
        base: The base.
        config: Settings of the adapter.
        adapter: Shape and type of each tensor of the adapter by its name in the file.
        read_adapter: Function that returns one of them.
        origin: Name of the adapter in messages.
    """

    base: CheckpointReader
    config: LoraConfig
    adapter: Mapping[str, TensorSpec]
    read_adapter: Callable[[str], np.ndarray] = dataclasses.field(repr=False)
    origin: str

    @classmethod
    def open(cls, folder: Path, config: LoraConfig, base: CheckpointReader, *, origin: str) -> "LoraReader":
        """Open the weights of an adapter and compare their names with those of the base.

        Raises:
            InputError: If they are missing or damaged, or hold what the base does not have or what is not
                applied here.
        """
        adapter, read_adapter = _open_adapter(folder, origin)
        reader = cls(base=base, config=config, adapter=adapter, read_adapter=read_adapter, origin=origin)
        _ = reader._parts
        return reader

    @functools.cached_property
    def _parts(self) -> dict[str, dict[str, str]]:
        """Names in the adapter of the parts for each tensor of the base, by their kind."""
        parts: dict[str, dict[str, str]] = {}
        for name in self.adapter:
            target, kind = _target(name)
            if target not in self.base.tensors:
                raise InputError(
                    f"{one_line(name)} of {self.origin} is for no weight of {self.base.origin}, or of a kind "
                    "that is not applied here: merge the adapter with PEFT's merge_and_unload() and "
                    "save_pretrained(...)"
                )
            parts.setdefault(target, {})[kind] = name
        for target, kinds in parts.items():
            self._check(target, kinds)
        return parts

    def _check(self, target: str, kinds: Mapping[str, str]) -> None:
        shapes = {kind: self.adapter[name].shape for kind, name in kinds.items()}
        if set(kinds) == {"whole"}:
            fits = shapes["whole"] == self.base.tensors[target].shape
        else:
            fits = set(kinds) in _PAIRS and _fit(shapes, self.base.tensors[target].shape)
        if not fits:
            raise InputError(
                f"{', '.join(sorted(map(one_line, kinds.values())))} of {self.origin} do not fit {target} of "
                f"{self.base.origin}: is that the model that the adapter was trained on?"
            )

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor of the base; those with an adapter are float32."""
        return {
            name: dataclasses.replace(spec, dtype="float32") if name in self._parts else spec
            for name, spec in self.base.tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Return one tensor, merged."""
        kinds = self._parts.get(name)
        if kinds is None:
            return self.base.read(name)
        parts = {kind: self._finite(inner).astype(np.float32) for kind, inner in kinds.items()}
        if "whole" in parts:
            return parts["whole"]
        rank = parts["A" if "A" in parts else "embedding_A"].shape[0]
        scale = np.float32(self.config.scale(name.rpartition(".")[0], rank))
        merged = self.base.read(name).astype(np.float32)
        merged += _product(parts).reshape(merged.shape) * scale
        if "magnitude" in parts:
            merged *= (parts["magnitude"].reshape(-1) / np.linalg.norm(merged, axis=1))[:, None]
        return merged

    def _finite(self, name: str) -> np.ndarray:
        tensor = self.read_adapter(name)
        if not all_finite(tensor):
            raise InputError(f"{one_line(name)} of {self.origin} is not finite: fetch or train it again")
        return tensor


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter."""
    return (folder / "adapter_config.json").is_file() or any(folder.glob("adapter_model.*"))


def _open_adapter(folder: Path, origin: str) -> tuple[Mapping[str, TensorSpec], Callable[[str], np.ndarray]]:
    """Return the tensors of an adapter's file, and the function that reads them."""
    safetensors, pickled = (folder / name for name in WEIGHTS_NAMES)
    if safetensors.is_file():
        reader = SafetensorsReader(folder=folder, files=(safetensors,), origin=origin)
        return _floating(reader.tensors, origin), reader.read
    if not pickled.is_file():
        raise InputError(f"{origin} has settings of an adapter but no {WEIGHTS_NAMES[0]}: download it again")
    archive = TorchArchive.open(pickled, name=str(pickled))
    values: dict[str, Any] = {str(name): value for name, value in archive.values().items()}
    if strays := [name for name, value in values.items() if not isinstance(value, ArchivedTensor)]:
        raise archive.damaged(f"{one_line(strays[0])} is no tensor")
    specs = {name: TensorSpec(shape=value.shape, dtype=value.dtype) for name, value in values.items()}
    return _floating(specs, origin), lambda name: archive.read(values[name])


def _floating(specs: Mapping[str, TensorSpec], origin: str) -> Mapping[str, TensorSpec]:
    for name, spec in specs.items():
        if "float" not in spec.dtype or "8" in spec.dtype:
            raise InputError(
                f"{one_line(name)} of {origin} has the type {spec.dtype}: expected floating point"
            )
    return specs


def _target(name: str) -> tuple[str, str]:
    """Return the Hugging Face name of the tensor that a tensor of an adapter is for, and its kind."""
    module = name.removeprefix(_PREFIX)
    for end, kind in _KINDS.items():
        if module.endswith(f".{end}"):
            return canonical_name(f"{module.removesuffix(f'.{end}')}.weight"), kind
    return canonical_name(module.replace(".base_layer.", ".")), "whole"


def _fit(shapes: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]) -> bool:
    """Return whether low-rank matrices make a product of a shape."""
    if "embedding_A" in shapes:
        first, second = shapes["embedding_A"], shapes["embedding_B"]
        return len(shape) == 2 and first == (second[-1], shape[0]) and second == (shape[1], first[0])
    first, second = shapes["A"], shapes["B"]
    fits = len(first) == len(second) == len(shape) > 1
    fits = fits and first[1:] == shape[1:] and second == (shape[0], first[0], *(1,) * (len(shape) - 2))
    if "magnitude" in shapes:
        return fits and len(shape) == 2 and int(np.prod(shapes["magnitude"])) == shape[0]
    return fits


def _product(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return ``B @ A``; that of an embedding is transposed, and that of a convolution has its axes merged."""
    if "embedding_A" in parts:
        return (parts["embedding_B"] @ parts["embedding_A"]).T
    first, second = parts["A"], parts["B"]
    return second.reshape(second.shape[0], -1) @ first.reshape(first.shape[0], -1)
