"""Write the ``.pt`` file of openai/whisper, without torch.

``whisper.load_model`` takes the path of the file. It has no place for alignment heads: openai/whisper then
reads word timestamps from all heads in the upper half of the decoder's layers.

Source: ``load_model`` in ``whisper/__init__.py`` and ``ModelDimensions`` in ``whisper/model.py``.
"""

from pathlib import Path

import ml_dtypes  # noqa: F401  (importing it teaches NumPy the name bfloat16)
import numpy as np

from flax_distil.checkpoints.formats.openai.names import to_huggingface, to_openai
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats.openai_architecture import check_openai_architecture
from flax_distil.exporting.formats.torch_archive import StateDict, write_torch_archive
from flax_distil.exporting.source import ExportSource
from flax_distil.model.config import WhisperConfig

QUANTIZATIONS = ("float16", "float32")
"""Element types of the weights."""

FILE_NAME = "model.pt"

_VOCABULARIES = (51864, 51865, 51866)


def write(source: ExportSource, folder: Path, *, quantization: str) -> None:
    """Write ``model.pt``.

    Args:
        source: The checkpoint.
        folder: An existing folder.
        quantization: One of :data:`QUANTIZATIONS`.

    Raises:
        InputError: If openai/whisper cannot run the architecture or the vocabulary, or a value does not fit
            float16.
    """
    check_openai_architecture(source.config, "openai-whisper")
    _check_vocabulary(source.config)
    shapes = {to_openai(name): shape for name, shape in source.shapes.items()}
    state = StateDict(
        shapes=shapes,
        dtype=np.dtype(quantization),
        read=lambda name: source.read(to_huggingface(name)),
    )
    dims = dimensions(source.config)
    write_torch_archive(folder / FILE_NAME, {"dims": dims}, {"model_state_dict": state})


def dimensions(config: WhisperConfig) -> dict[str, int]:
    """Return an architecture by the names of ``ModelDimensions`` in openai/whisper."""
    return {
        "n_mels": config.num_mel_bins,
        "n_vocab": config.vocab_size,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }


def _check_vocabulary(config: WhisperConfig) -> None:
    """Refuse vocabularies for which openai/whisper would choose other tokens than the model has."""
    if config.vocab_size not in _VOCABULARIES:
        raise InputError(
            f"openai-whisper has no vocabularies but those of {', '.join(map(str, _VOCABULARIES))} tokens: "
            f"export a model of vocab_size {config.vocab_size} to another format"
        )
