"""Load a checkpoint of any kind: a folder, a Hub id, or a file of openai-whisper."""

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_distil.checkpoints.check_tensors import check_tensors, check_tied_projection, has_no_encoder
from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.checkpoints.formats.lora_config import LoraConfig
from flax_distil.checkpoints.formats.openai.reader import SUFFIX
from flax_distil.checkpoints.formats.reader import CheckpointReader
from flax_distil.checkpoints.hub.download import OPENAI_MODELS, download
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_params import BRANCHES, ShardingRule, load_params
from flax_distil.checkpoints.open_files import Opened, check_base, open_files
from flax_distil.checkpoints.training.bucket import download_from_bucket
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line
from flax_distil.core.files import user_path
from flax_distil.model.config import WhisperConfig
from flax_distil.storage.remote_files import is_remote

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A Whisper model: its architecture, its weights, and the other files of its checkpoint.

    Attributes:
        config: The architecture.
        params: Parameter tree as in ``flax_distil.model.assembly.whisper_shapes``, on devices; ``{}`` if only
            the configuration was asked for.
        files: Tokenizer, generation settings and other small files, which an export writes again.
    """

    config: WhisperConfig
    params: Params = dataclasses.field(repr=False)
    files: CheckpointFiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenCheckpoint:
    """A Whisper model whose weights have not been read.

    Attributes:
        config: The architecture.
        files: Tokenizer, generation settings and other small files.
        reader: Reads the tensors one at a time, which are those of the architecture.
    """

    config: WhisperConfig
    files: CheckpointFiles
    reader: CheckpointReader = dataclasses.field(repr=False)


def open_checkpoint(source: str | Path | ModelSource) -> OpenCheckpoint:
    """Open a Whisper checkpoint with an encoder, and compare the shapes of its tensors with its config.

    Args:
        source: As for :func:`load_checkpoint`.

    Raises:
        InputError: If :func:`load_checkpoint` would raise it before it reads the values of tensors.
    """
    if not isinstance(source, ModelSource):
        source = ModelSource(name=str(source))
    (reader, config, files), origin = _open(source, needs_weights=True)
    assert reader is not None
    if has_no_encoder(reader):
        raise _no_encoder(origin)
    check_tensors(reader, config)
    check_tied_projection(reader)
    return OpenCheckpoint(config=config, files=files, reader=reader)


def load_checkpoint(
    source: str | Path | ModelSource,
    *,
    dtype: DTypeLike = jnp.float32,
    config_only: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    sharding: ShardingRule | None = None,
    without_encoder: bool = False,
    branches: Collection[str] = BRANCHES,
) -> Checkpoint:
    """Read a Whisper checkpoint onto the devices, leaf by leaf.

    Args:
        source: A folder with ``model.safetensors`` (or an index and shards), with ``flax_model.msgpack``, a
            CTranslate2 folder with ``model.bin``, a LoRA adapter of PEFT, which is merged into its base, the
            address of such a folder in a bucket, its id on the Hugging Face Hub, a ``.pt`` file of
            openai-whisper, or the name of a model in openai/whisper, such as ``large-v3`` or ``tiny.en``. A
            :class:`ModelSource` also names revision and cache.
        dtype: Element type of the parameters.
        config_only: Do not read the weights (nor download them), so that vocabularies and mel bins can be
            compared before any work. If the weights are present, the shapes of their tensors are still
            compared with the configuration.
        revision: Branch, tag or commit, for a Hub id.
        cache_dir: Folder of downloads; by default the cache of ``huggingface_hub``.
        sharding: Function that returns the sharding of each leaf by its path; by default all leaves are on
            the first device.
        without_encoder: Also accept a decoder without an encoder, as ``WhisperForCausalLM`` of transformers
            saves it; its parameters have no branch ``encoder``.
        branches: Which of ``encoder`` and ``decoder`` to read.

    Returns:
        The checkpoint.

    Raises:
        InputError: If there is no such folder or Hub id, it is not a Whisper model, its weights are in
            another format, a small file has a wrong field, or tensors are missing, unexpected, of the wrong
            shape (the message names all of them) or hold values that are not finite.
    """
    if not isinstance(source, ModelSource):
        kept = None if cache_dir is None else str(cache_dir)
        source = ModelSource(name=str(source), revision=revision, cache_dir=kept)
    (reader, config, files), origin = _open(source, needs_weights=not config_only)
    if reader is None:
        return Checkpoint(config=config, params={}, files=files)
    decoder_only = has_no_encoder(reader)
    if decoder_only and not without_encoder:
        raise _no_encoder(origin)
    params: Params = {}
    if config_only:
        check_tensors(reader, config, decoder_only=decoder_only)
    else:
        params = load_params(
            reader, config, decoder_only=decoder_only, dtype=dtype, sharding=sharding, branches=branches
        )
    return Checkpoint(config=config, params=params, files=files)


def _no_encoder(origin: str) -> InputError:
    return InputError(
        f"{origin} holds a decoder without an encoder: it can be an assistant_model of the checkpoint it "
        "was distilled from, and nothing else"
    )


def _open(source: ModelSource, *, needs_weights: bool) -> tuple[Opened, str]:
    """Find a checkpoint and open its files; the second result is its name in messages."""
    path, origin = _locate(source, config_only=not needs_weights)

    def open_base(adapter: LoraConfig) -> Opened:
        base = dataclasses.replace(
            source, name=adapter.base_model_name_or_path, revision=adapter.revision, subfolder=None
        )
        if is_remote(base.name):  # an adapter of somebody else opens no addresses
            raise InputError(
                f"the base of the adapter {origin} is an address: copy it here, and write its folder into "
                "base_model_name_or_path of adapter_config.json"
            )
        found, name = _locate(base, config_only=not needs_weights)
        check_base(found, adapter, origin)
        return open_files(found, name, needs_weights=needs_weights, open_base=open_base)

    return open_files(path, origin, needs_weights=needs_weights, open_base=open_base), origin


def _locate(source: ModelSource, *, config_only: bool) -> tuple[Path, str]:
    """Return the local folder of a checkpoint and its name in messages, after a download if needed."""
    path, expected = user_path(source.name), "expected the folder of a checkpoint, or a Hub id"
    if not source.name.strip():
        raise InputError(f"the name of a checkpoint is empty: {expected}")
    if is_remote(source.name):
        return download_from_bucket(source, weights=not config_only), str(source)
    if os.path.isdir(path):  # unlike Path.is_dir, it returns False for names that no file system accepts
        folder = path / (source.subfolder or "")
        if not os.path.isdir(folder):
            raise InputError(f"checkpoint {source.name!r} has no subfolder {source.subfolder!r}")
        return folder, str(source)
    if os.path.exists(path):
        if path.suffix == SUFFIX and path.is_file() and source.subfolder is None:
            return path, str(source)
        raise InputError(f"{source} is a file: {expected}, or a {SUFFIX} file of openai-whisper")
    if not _HUB_ID.fullmatch(source.name):
        raise InputError(f"there is no folder {one_line(str(source))}: {expected}")
    found = dataclasses.replace(source, name=OPENAI_MODELS.get(source.name, source.name))
    return download(found, weights=not config_only), str(found)
