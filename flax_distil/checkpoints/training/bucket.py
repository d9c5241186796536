"""Checkpoints in buckets, which are read from a copy on this machine."""

from pathlib import Path

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME
from flax_distil.checkpoints.formats.files import SMALL_FILES
from flax_distil.checkpoints.formats.huggingface import INDEX_NAME
from flax_distil.checkpoints.hub.download import OTHER_WEIGHT_FILES, WEIGHT_FILES, lacks_weights
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.errors import InputError
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.downloads import cached_copy
from flax_distil.storage.paths import output_path
from flax_distil.storage.remote_files import is_remote


def bucket_folder(source: ModelSource) -> BucketPath | None:
    """Return the folder in a bucket that a source names; None if it names something else.

    Raises:
        InputError: If it is an address of another kind.
    """
    if not is_remote(source.name):
        return None
    folder = output_path(source.name, flag="checkpoint")
    assert isinstance(folder, BucketPath)
    return folder / source.subfolder if source.subfolder else folder


def download_from_bucket(source: ModelSource, *, weights: bool) -> Path:
    """Download a checkpoint from a bucket, or find it in the cache.

    Args:
        source: Source whose name is an address.
        weights: Whether to download the weights beside the small files.

    Returns:
        The local folder.

    Raises:
        InputError: If there is no checkpoint, or the bucket cannot be read.
    """
    folder = bucket_folder(source)
    assert folder is not None
    patterns = [*SMALL_FILES, INDEX_NAME, *(WEIGHT_FILES if weights else (MODEL_NAME,))]
    cache_dir = None if source.cache_dir is None else Path(source.cache_dir)
    local = cached_copy(folder, patterns, cache_dir)
    if lacks_weights(local, weights=weights):
        local = cached_copy(folder, [*SMALL_FILES, *OTHER_WEIGHT_FILES], cache_dir)
    if not any(local.iterdir()):
        raise InputError(f"there is no checkpoint at {str(source)!r}: expected the folder of a checkpoint")
    return local
