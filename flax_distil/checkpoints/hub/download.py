"""Download checkpoints from the Hugging Face Hub."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME
from flax_distil.checkpoints.formats.files import SMALL_FILES
from flax_distil.checkpoints.formats.flax_msgpack import PATTERN as FLAX_PATTERN
from flax_distil.checkpoints.formats.huggingface import INDEX_NAME, WEIGHTS_NAME, has_weights, other_weights
from flax_distil.checkpoints.formats.lora import WEIGHTS_NAMES as ADAPTER_NAMES
from flax_distil.checkpoints.formats.lora import is_adapter
from flax_distil.checkpoints.formats.openai.reader import SUFFIX
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.errors import InputError

OPENAI_MODELS = {
    name: f"openai/whisper-{name}"
    for name in (
        "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium", "large-v2",
        "large-v3", "large-v3-turbo",
    )
} | {
    "large-v1": "openai/whisper-large",
    "large": "openai/whisper-large-v3",
    "turbo": "openai/whisper-large-v3-turbo",
}  # fmt: skip
"""Hub ids of the models by their names in openai/whisper."""

WEIGHT_FILES = (WEIGHTS_NAME, "model-*-of-*.safetensors", MODEL_NAME, *ADAPTER_NAMES)
"""Patterns of the files of weights."""

OTHER_WEIGHT_FILES = (FLAX_PATTERN, f"*{SUFFIX}")
"""Patterns of files of weights that are read only where there are none of :data:`WEIGHT_FILES`."""


def download(source: ModelSource, *, weights: bool = True) -> Path:
    """Download a checkpoint from the Hub, or find it in the cache.

    Args:
        source: Source whose name is a Hub id, such as ``openai/whisper-tiny.en``.
        weights: Whether to download the weights beside the small files. The weights of a CTranslate2 or
            openai-whisper checkpoint are always downloaded, because only they tell its architecture.

    Returns:
        The local folder.

    Raises:
        InputError: If it cannot be downloaded and is not in the cache, has no such subfolder, or its weights
            are in another format.
    """
    below = f"{source.subfolder.strip('/')}/" if source.subfolder else ""
    patterns = [*SMALL_FILES, INDEX_NAME, *(WEIGHT_FILES if weights else (MODEL_NAME,))]
    path = _snapshot(source, below, patterns)
    if lacks_weights(path, weights=weights):
        path = _with_other_weights(source, below, path)
    if not path.is_dir():
        where = f"subfolder {source.subfolder!r}" if below else "files of a checkpoint"
        raise InputError(f"model {source.name!r} on the Hugging Face Hub has no {where}")
    return path


def lacks_weights(folder: Path, *, weights: bool) -> bool:
    """Return whether a folder lacks files that :data:`OTHER_WEIGHT_FILES` may stand for.

    Args:
        folder: Folder with those of the small files and of :data:`WEIGHT_FILES` that there are.
        weights: Whether weights are needed. If not, those of openai-whisper still are, because the
            architecture is in their file alone.
    """
    if has_weights(folder) or (folder / MODEL_NAME).exists() or is_adapter(folder):
        return False
    return weights or not (folder / "config.json").exists()


def _snapshot(source: ModelSource, below: str, patterns: Sequence[str]) -> Path:
    """Download the files in a folder of a repository that match patterns, and return their folder here."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source.name,
            revision=source.revision,
            cache_dir=source.cache_dir,
            token=source.token,
            allow_patterns=[f"{below}{pattern}" for pattern in patterns],
        )
    except Exception as error:  # the network has too many ways to fail, of as many types
        at = f" at revision {source.revision!r}" if source.revision else ""
        raise InputError(
            f"{source.name!r} is neither a folder here nor a model{at} that the Hugging Face Hub would give "
            f"({reason(error)}): check the name, the connection and, for a private model, `hf auth login`"
        ) from error
    return Path(folder) / below


def _with_other_weights(source: ModelSource, below: str, path: Path) -> Path:
    """Download weights of other formats that can be read.

    Raises:
        InputError: If there are only weights of formats that are not read; with advice on conversion.
    """
    from huggingface_hub import HfApi

    try:
        names = HfApi(token=source.token).list_repo_files(source.name, revision=source.revision)
    except Exception:  # as in _snapshot; without the Hub, what is in the cache is all there is
        return path
    names = [name.removeprefix(below) for name in names if name.startswith(below)]
    names = [name for name in names if "/" not in name]
    for pattern in OTHER_WEIGHT_FILES:
        if fnmatch.filter(names, pattern):
            return _snapshot(source, below, [*SMALL_FILES, pattern])
    how = other_weights(names, source.name)
    if how is not None:
        raise InputError(how)
    return path


def reason(error: BaseException) -> str:
    """Return the first line of the message of an error, or of the error that caused it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
