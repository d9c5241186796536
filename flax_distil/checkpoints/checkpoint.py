"""One door for every checkpoint: a Hugging Face folder, a CTranslate2 folder, a Hub id."""

import dataclasses
import os
import re
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME, CTranslate2Reader
from flax_distil.checkpoints.formats.ctranslate2_files import read_ctranslate2_files
from flax_distil.checkpoints.formats.huggingface import SafetensorsReader, has_weights
from flax_distil.checkpoints.formats.reader import CheckpointFiles, read_files
from flax_distil.checkpoints.hub.download import OPENAI_MODELS, download
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_params import (
    CheckpointReader,
    ShardingRule,
    assemble,
    check_tensors,
    has_no_encoder,
)
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line
from flax_distil.core.files import user_path
from flax_distil.model.config import WhisperConfig

_CONVERT_OPENAI = (
    "files of openai-whisper are converted once by convert_openai_to_hf.py of transformers; its own models "
    "are on the Hub as openai/whisper-..."
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A Whisper model: what it looks like, its weights, and the files that go with it.

    Attributes:
        config: The architecture.
        params: The parameter tree of ``flax_distil.model.assembly.whisper_shapes``, on devices;
            ``{}`` if only the configuration was asked for.
        files: Tokenizer, generation settings and the rest, to be written with an export.
    """

    config: WhisperConfig
    params: Params = dataclasses.field(repr=False)
    files: CheckpointFiles


def load_checkpoint(
    source: str | Path | ModelSource,
    *,
    dtype: DTypeLike = jnp.float32,
    config_only: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    sharding: ShardingRule | None = None,
    without_encoder: bool = False,
) -> Checkpoint:
    """Read a Whisper checkpoint onto the devices, leaf by leaf.

    Args:
        source: A folder with ``model.safetensors`` (or an index and shards), a CTranslate2
            folder with ``model.bin``, the id of either on the Hugging Face Hub, or the name that
            openai/whisper gives to a model, such as ``large-v3`` or ``tiny.en``. A :class:`ModelSource`
            tells revision and cache too.
        dtype: Element type of the parameters.
        config_only: Leave the weights alone (on the Hub: do not even download them), to
            compare vocabularies and mel bins before any work. Where they are there, the shapes of the
            tensors are compared with the configuration.
        revision: Branch, tag or commit, for a Hub id.
        cache_dir: Where downloads are kept; by default where ``huggingface_hub`` keeps them.
        sharding: Gives each leaf's sharding by its path; by default all on the first device.
        without_encoder: Take a decoder alone too, as ``WhisperForCausalLM`` of transformers saves it; its
            parameters have no branch ``encoder``.

    Returns:
        The checkpoint.

    Raises:
        InputError: If there is no such folder or Hub id, it is no Whisper, its weights are
            in another format, a small file or one of its fields is not as it must be, or tensors are
            missing, unexpected, misshapen (all named) or hold values that are not finite.
    """
    if not isinstance(source, ModelSource):
        kept = None if cache_dir is None else str(cache_dir)
        source = ModelSource(name=str(source), revision=revision, cache_dir=kept)
    folder, origin = _locate(source, config_only=config_only)
    weights: CheckpointReader
    if _is_ctranslate2(folder):
        model = CTranslate2Reader.open(folder, origin=origin)
        weights, config = model, model.config()
        files = read_ctranslate2_files(folder, config, origin=origin)
    else:
        files = read_files(folder, origin=origin)
        config = WhisperConfig.from_huggingface(files.config, name=f"config.json of {origin}")
        if config_only and not has_weights(folder):
            return Checkpoint(config=config, params={}, files=files)
        weights = SafetensorsReader.open(folder, origin=origin)
    decoder_only = has_no_encoder(weights)
    if decoder_only and not without_encoder:
        raise InputError(
            f"{origin} holds a decoder without an encoder: it can be an assistant_model of the checkpoint it "
            "was distilled from, and nothing else"
        )
    if config_only:
        check_tensors(weights, config, decoder_only=decoder_only)
        return Checkpoint(config=config, params={}, files=files)
    params = assemble(weights, config, dtype=dtype, sharding=sharding, decoder_only=decoder_only)
    return Checkpoint(config=config, params=params, files=files)


def _locate(source: ModelSource, *, config_only: bool) -> tuple[Path, str]:
    """Return a local folder and what to call it, downloading from the Hub if need be."""
    path, expected = user_path(source.name), "expected the folder of a checkpoint, or a Hub id"
    if not source.name.strip():
        raise InputError(f"the name of a checkpoint is empty: {expected}")
    if os.path.isdir(path):  # unlike Path.is_dir, it says no to names that no file system takes
        folder = path / (source.subfolder or "")
        if not os.path.isdir(folder):
            raise InputError(f"checkpoint {source.name!r} has no subfolder {source.subfolder!r}")
        return folder, str(source)
    if os.path.exists(path):
        how = f"; {_CONVERT_OPENAI}" if path.suffix == ".pt" else ""
        raise InputError(f"{source} is a file: {expected}{how}")
    if not _HUB_ID.fullmatch(source.name):
        raise InputError(f"there is no folder {one_line(str(source))}: {expected}")
    found = dataclasses.replace(source, name=OPENAI_MODELS.get(source.name, source.name))
    return download(found, weights=not config_only), str(found)


def _is_ctranslate2(folder: Path) -> bool:
    return (folder / MODEL_NAME).is_file() and not any(folder.glob("model*.safetensors*"))
