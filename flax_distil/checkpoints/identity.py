"""Tell whether a name stands for the same weights as before, without reading all of them."""

import hashlib
import os
from pathlib import Path

from flax_distil.checkpoints.hub.download import OPENAI_MODELS
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.training.bucket import bucket_folder
from flax_distil.core.files import user_path
from flax_distil.storage.downloads import folder_identity

_SAMPLES, _SAMPLE_BYTES = 16, 4096
_SUFFIXES = (".safetensors", ".bin", ".msgpack", ".pt")
_ADAPTER = "adapter_config.json"  # it names the base


def model_identity(source: ModelSource) -> str | None:
    """Return what changes when other weights are put under a name, and stays when they move.

    Args:
        source: A checkpoint that has been read, so that one of the Hub is in the cache.

    Returns:
        For a folder or a file, a digest of the sizes of its files of weights and of samples of their
        contents: of the beginning, where safetensors describe themselves, and of places spread over the
        rest. For the Hub, the commit. For a bucket, a digest of what that tells about these files. None if
        nothing is known.
    """
    if (address := bucket_folder(source)) is not None:
        return folder_identity(address, [_ADAPTER, *(f"*{suffix}" for suffix in _SUFFIXES)])
    folder = user_path(source.name)
    if os.path.isdir(folder):
        return _digest_of_files(sorted((folder / (source.subfolder or "")).glob("*")))
    if os.path.isfile(folder):
        return _digest_of_files([folder])
    from huggingface_hub import try_to_load_from_cache

    name = "/".join(filter(None, ((source.subfolder or "").strip("/"), "config.json")))
    try:
        found = try_to_load_from_cache(
            OPENAI_MODELS.get(source.name, source.name),
            name,
            cache_dir=source.cache_dir,
            revision=source.revision,
        )
    except ValueError:  # no name of the Hub
        return None
    if not isinstance(found, str):
        return None
    parts = Path(found).parts
    return f"commit {parts[parts.index('snapshots') + 1]}"


def _digest_of_files(paths: list[Path]) -> str | None:
    digest = hashlib.blake2b(digest_size=16)
    paths = [path for path in paths if path.suffix in _SUFFIXES or path.name == _ADAPTER]
    paths = [path for path in paths if path.is_file()]
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\0".encode())
        with path.open("rb") as file:
            for number in range(_SAMPLES):
                file.seek(number * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest() if paths else None
