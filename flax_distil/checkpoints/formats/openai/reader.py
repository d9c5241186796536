"""Read the weights of openai/whisper: a ``.pt`` file with the sizes of the model and its tensors."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.archives.torch_archive import ArchivedTensor, TorchArchive
from flax_distil.checkpoints.formats.openai.names import to_huggingface
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.core.errors import InputError
from flax_distil.core.fields import check_fields, short_repr, whole_number
from flax_distil.model.config import WhisperConfig

SUFFIX = ".pt"

_DIMENSIONS = (
    "n_mels", "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer",
    "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer",
)  # fmt: skip

_BUFFERS = frozenset({"decoder.mask", "alignment_heads"})
"""Tensors of some files that are no weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenAIReader(CheckpointReader):
    """Reads the tensors of a ``.pt`` file of openai/whisper by their Hugging Face names.

    Attributes:
        archive: The file.
        origin: Name of the checkpoint in messages.
    """

    archive: TorchArchive
    origin: str

    @classmethod
    def open(cls, path: Path, *, origin: str | None = None) -> "OpenAIReader":
        """Open a file and read the list of its tensors; nothing in it is executed.

        Raises:
            InputError: If the file is damaged, or holds no ``dims`` and ``model_state_dict``.
        """
        origin = origin or str(path)
        archive = TorchArchive.open(path, name=origin)
        for key in ("dims", "model_state_dict"):
            if key not in archive:
                raise InputError(
                    f"{origin} has no {key}: expected a model of openai-whisper, "
                    '{"dims": model.dims.__dict__, "model_state_dict": model.state_dict()}'
                )
        reader = cls(archive=archive, origin=origin)
        _ = reader._tensors
        return reader

    @functools.cached_property
    def _tensors(self) -> dict[str, ArchivedTensor]:
        state = self.archive.value("model_state_dict")
        if not isinstance(state, dict):
            raise self.archive.damaged(f"its model_state_dict is {short_repr(state)}")
        strays = [name for name, tensor in state.items() if not isinstance(tensor, ArchivedTensor)]
        if strays:
            raise self.archive.damaged(f"{short_repr(strays[0])} in its model_state_dict is no tensor")
        return {to_huggingface(str(name)): tensor for name, tensor in state.items() if name not in _BUFFERS}

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor, by Hugging Face name."""
        return {
            name: TensorSpec(shape=tensor.shape, dtype=tensor.dtype) for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Return one tensor."""
        return self.archive.read(self._tensors[name])

    def config(self) -> WhisperConfig:
        """Return the architecture that ``dims`` describes.

        Raises:
            InputError: If a size is missing, or no Whisper has it.
        """
        name = f"dims of {self.origin}"
        dims = self.archive.value("dims")
        if not isinstance(dims, dict):
            raise self.archive.damaged(f"its dims are {short_repr(dims)}")
        check_fields(
            dims, dict.fromkeys(_DIMENSIONS, whole_number(1, 2**24)), name=name, required=_DIMENSIONS
        )
        if dims["n_audio_state"] != dims["n_text_state"]:
            raise InputError(
                f"{name}: n_audio_state {dims['n_audio_state']} is not n_text_state {dims['n_text_state']}"
            )
        return WhisperConfig.from_huggingface(_huggingface_sizes(dims), name=name)


def _huggingface_sizes(dims: Mapping[str, int]) -> dict[str, int]:
    width = dims["n_audio_state"]
    return {
        "vocab_size": dims["n_vocab"],
        "num_mel_bins": dims["n_mels"],
        "d_model": width,
        "encoder_layers": dims["n_audio_layer"],
        "decoder_layers": dims["n_text_layer"],
        "encoder_attention_heads": dims["n_audio_head"],
        "decoder_attention_heads": dims["n_text_head"],
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "max_source_positions": dims["n_audio_ctx"],
        "max_target_positions": dims["n_text_ctx"],
    }
