"""The Hugging Face Hub: checkpoints down."""

from pathlib import Path

from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME
from flax_distil.checkpoints.formats.huggingface import INDEX_NAME, WEIGHTS_NAME, has_weights, other_weights
from flax_distil.checkpoints.formats.reader import SMALL_FILES
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
"""The names that openai/whisper calls its models by, and where the Hub has them."""

_WEIGHT_FILES = (WEIGHTS_NAME, "model-*-of-*.safetensors", MODEL_NAME)


def download(source: ModelSource, *, weights: bool = True) -> Path:
    """Fetch a checkpoint from the Hub, or find it in the cache.

    Args:
        source: With a Hub id for a name, such as ``openai/whisper-tiny.en``.
        weights: Whether to fetch the weights beside the small files. A CTranslate2 checkpoint
            tells its architecture only by its weights, so these are fetched all the same.

    Returns:
        The local folder.

    Raises:
        InputError: If it cannot be fetched and is not in the cache, has no such subfolder, or its weights are
            in a format that is not read.
    """
    from huggingface_hub import snapshot_download

    below = f"{source.subfolder.strip('/')}/" if source.subfolder else ""
    patterns = [*SMALL_FILES, INDEX_NAME, *(_WEIGHT_FILES if weights else (MODEL_NAME,))]
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
    """Say how to convert the weights of a repository, if it has any and can be asked."""
    from huggingface_hub import HfApi

    try:
        names = HfApi(token=source.token).list_repo_files(source.name, revision=source.revision)
    except Exception:  # as in download; that weights are missing is said by whoever looks for them
        return
    how = other_weights((name.removeprefix(below) for name in names if name.startswith(below)), source.name)
    if how is not None:
        raise InputError(how)


def reason(error: BaseException) -> str:
    """Return what an error, or the one that caused it, says in its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
