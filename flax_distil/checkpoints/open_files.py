"""Open the files of a checkpoint, whatever their format: what a folder holds decides how it is read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME, CTranslate2Reader
from flax_distil.checkpoints.formats.ctranslate2_files import read_ctranslate2_files
from flax_distil.checkpoints.formats.files import (
    CheckpointFiles,
    read_files,
    read_small_file,
    read_tokenizer_files,
)
from flax_distil.checkpoints.formats.flax_msgpack import FlaxReader, has_flax_weights
from flax_distil.checkpoints.formats.huggingface import SafetensorsReader, has_weights
from flax_distil.checkpoints.formats.lora import LoraReader, is_adapter
from flax_distil.checkpoints.formats.lora_config import LoraConfig
from flax_distil.checkpoints.formats.openai.files import read_openai_files
from flax_distil.checkpoints.formats.openai.reader import SUFFIX, OpenAIReader
from flax_distil.checkpoints.formats.reader import CheckpointReader
from flax_distil.core.errors import InputError
from flax_distil.core.fields import short_repr
from flax_distil.model.config import WhisperConfig


class Opened(NamedTuple):
    """A checkpoint whose weights have not been read; without a reader if they are absent and not needed."""

    reader: CheckpointReader | None
    config: WhisperConfig
    files: CheckpointFiles


OpenBase = Callable[[LoraConfig], Opened]
"""Function that opens the model that an adapter belongs to."""


def open_files(path: Path, origin: str, *, needs_weights: bool, open_base: OpenBase) -> Opened:
    """Read the small files of a checkpoint and open its weights.

    Args:
        path: Folder of the checkpoint, or the ``.pt`` file of a model of openai/whisper.
        origin: Name of the checkpoint in messages.
        needs_weights: Whether weights must be there. Those of CTranslate2 and openai/whisper always must,
            because only they tell the architecture.
        open_base: Opens the base of an adapter.

    Raises:
        InputError: If files are missing or damaged.
    """
    if path.is_file():
        return _open_openai(path, origin)
    if is_adapter(path):
        return _open_adapter(path, origin, open_base)
    if _is_ctranslate2(path):
        model = CTranslate2Reader.open(path, origin=origin)
        config = model.config()
        return Opened(model, config, read_ctranslate2_files(path, config, origin=origin))
    if not (path / "config.json").is_file() and (found := _only_openai_file(path, origin)) is not None:
        return _open_openai(found, origin)
    files = read_files(path, origin=origin)
    config = WhisperConfig.from_huggingface(files.config, name=f"config.json of {origin}")
    if has_flax_weights(path) and not has_weights(path):
        return Opened(FlaxReader.open(path, origin=origin), config, files)
    has_reader = needs_weights or has_weights(path)
    return Opened(SafetensorsReader.open(path, origin=origin) if has_reader else None, config, files)


def _open_openai(path: Path, origin: str) -> Opened:
    reader = OpenAIReader.open(path, origin=origin)
    config = reader.config()
    return Opened(reader, config, read_openai_files(path.parent, config, origin=origin))


def _only_openai_file(folder: Path, origin: str) -> Path | None:
    """Return the model of openai/whisper in a folder; None if there is none."""
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3])
        raise InputError(f"{origin} holds {len(found)} {SUFFIX} files ({names}): give the path of one")
    return found[0] if found else None


def _open_adapter(folder: Path, origin: str, open_base: OpenBase) -> Opened:
    """Open an adapter and its base; tokenizer and generation settings are the adapter's where it has them."""
    if has_weights(folder) or (folder / MODEL_NAME).is_file():
        raise InputError(
            f"{origin} holds a PEFT adapter and the weights of a model, and it is not clear whether the "
            "adapter is merged into them: move one of the two elsewhere"
        )
    adapter = LoraConfig.read(folder, origin=origin)
    base = open_base(adapter)
    files = dataclasses.replace(
        base.files,
        origin=origin,
        generation_config=read_small_file(folder, "generation_config.json", origin=origin)
        or base.files.generation_config,
        tokenizer=read_tokenizer_files(folder, origin=origin) or base.files.tokenizer,
    )
    if base.reader is None:
        return Opened(None, base.config, files)
    return Opened(LoraReader.open(folder, adapter, base.reader, origin=origin), base.config, files)


def check_base(path: Path, config: LoraConfig, origin: str) -> None:
    """Check that the base of an adapter is a model.

    Raises:
        InputError: If it is an adapter itself.
    """
    if path.is_dir() and is_adapter(path):
        raise InputError(
            f"the base {short_repr(config.base_model_name_or_path)} of the adapter {origin} is an adapter "
            "itself: merge that one first, by exporting it"
        )


def _is_ctranslate2(folder: Path) -> bool:
    return (folder / MODEL_NAME).is_file() and not any(folder.glob("model*.safetensors*"))
