"""Download checkpoints from the Hugging Face Hub."""

from pathlib import Path

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME
from flax_distil.checkpoints.formats.files import SMALL_FILES
from flax_distil.checkpoints.formats.huggingface import INDEX_NAME, WEIGHTS_NAME, has_weights, other_weights
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

WEIGHT_FILES = (WEIGHTS_NAME, "model-*-of-*.safetensors", MODEL_NAME)
"""Patterns of the files of weights."""


def download(source: ModelSource, *, weights: bool = True) -> Path:
    """Download a checkpoint from the Hub, or find it in the cache.

    Args:
        source: Source whose name is a Hub id, such as ``openai/whisper-tiny.en``.
        weights: Whether to download the weights beside the small files. The weights of a CTranslate2
            checkpoint are always downloaded, because only they tell its architecture.

    Returns:
        The local folder.

    Raises:
        InputError: If it cannot be downloaded and is not in the cache, has no such subfolder, or its weights
            are in another format.
    """
    from huggingface_hub import snapshot_download

    below = f"{source.subfolder.strip('/')}/" if source.subfolder else ""
    patterns = [*SMALL_FILES, INDEX_NAME, *(WEIGHT_FILES if weights else (MODEL_NAME,))]
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
    path = Path(folder) / below
    if not path.is_dir():
        raise InputError(
            f"model {source.name!r} on the Hugging Face Hub has no subfolder {source.subfolder!r}"
        )
    if weights and not has_weights(path) and not (path / MODEL_NAME).exists():
        _refuse_other_formats(source, below)
    return path


def _refuse_other_formats(source: ModelSource, below: str) -> None:
    """Raise ``InputError`` with advice on conversion if weights of a repository are in another format."""
    from huggingface_hub import HfApi

    try:
        names = HfApi(token=source.token).list_repo_files(source.name, revision=source.revision)
    except Exception:  # as in download; whoever reads the weights reports that they are missing
        return
    how = other_weights((name.removeprefix(below) for name in names if name.startswith(below)), source.name)
    if how is not None:
        raise InputError(how)


def reason(error: BaseException) -> str:
    """Return the first line of the message of an error, or of the error that caused it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
