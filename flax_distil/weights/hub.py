"""The Hugging Face Hub: checkpoints down, exports and data sets up."""

import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from flax_distil.core import InputError
from flax_distil.weights.ctranslate2 import MODEL_NAME
from flax_distil.weights.files import SMALL_FILES
from flax_distil.weights.huggingface import INDEX_NAME, WEIGHTS_NAME

_WEIGHT_FILES = (WEIGHTS_NAME, "model-*-of-*.safetensors", MODEL_NAME)


_WAITS_SECONDS = (2.0, 10.0, 60.0)
"""Before a data set is sent again, where the Hub or the way to it fails."""

log = logging.getLogger(__name__)


class UploadError(RuntimeError):
    """The Hub did not take a folder; the message says where it is safe and how to try again."""


def download(
    repo_id: str, *, weights: bool = True, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Fetch a checkpoint from the Hub, or find it in the cache.

    Args:
        repo_id: ``openai/whisper-tiny.en``.
        weights: whether to fetch the weights beside the small files. A CTranslate2 checkpoint
            tells its architecture only by its weights, so these are fetched all the same.
        revision: branch, tag or commit; the default branch if ``None``.
        cache_dir: where to keep it; by default where ``huggingface_hub`` does.

    Returns:
        The local folder.

    Raises:
        InputError: if it cannot be fetched and is not in the cache.
    """
    from huggingface_hub import snapshot_download

    patterns = [*SMALL_FILES, INDEX_NAME, *(_WEIGHT_FILES if weights else (MODEL_NAME,))]
    try:
        folder = snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=patterns)
    except Exception as error:  # the network has too many ways to fail, of as many types
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"{repo_id!r} is neither a folder here nor a model{at} that the Hugging Face Hub would give "
            f"({_reason(error)}): check the name, the connection and, for a private model, `hf auth login`"
        ) from error
    return Path(folder)


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload a distilled Whisper",
) -> str:
    """Upload the files of an exported folder (not its sub-folders) in one commit.

    Args:
        folder: the export.
        repo_id: ``user/name``; created if absent.
        token: access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: whether a repository made by this call is private.
        revision: branch to commit to, made if absent; the default branch if ``None``.
        commit_message: first line of the commit.

    Returns:
        The address of the commit.

    Raises:
        InputError: if ``folder`` holds no export.
        UploadError: if the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    if "config.json" not in names:
        raise InputError(f"{folder} holds no config.json: expected the folder of an export")
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=names,
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # a run of many hours must not end in a traceback of the network
        retry = ["hf", "upload", repo_id, str(folder), "--exclude", "*/*"]
        retry += ["--revision", revision] if revision else []
        raise UploadError(
            f"could not upload to {repo_id!r} on the Hugging Face Hub ({_reason(error)}); "
            f"the export is safe in {folder}, to be uploaded with: {shlex.join(retry)}"
        ) from error
    return commit.commit_url


def push_data_set(
    folder: str | Path,
    repo_id: str,
    *,
    patterns: Sequence[str],
    token: str | None = None,
    private: bool = False,
) -> str:
    """Upload a data set; files that are there already are not sent again.

    Args:
        folder: the data set.
        repo_id: ``user/name``; created if absent.
        patterns: which files, relative to the folder.
        token: as for :func:`push_to_hub`.
        private: whether a repository made by this call is private.

    Returns:
        The address of the commit.

    Raises:
        UploadError: if the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for wait in (*_WAITS_SECONDS, None):
        try:
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=folder,
                commit_message="Upload pseudo-labels",
                allow_patterns=list(patterns),
            )
        except Exception as error:  # as in push_to_hub
            if wait is None or _is_refusal(error):
                raise UploadError(
                    f"could not upload to data set {repo_id!r} on the Hugging Face Hub ({_reason(error)}); "
                    f"it is safe in {folder}, and the same command uploads it without labelling again"
                ) from error
            log.warning("the upload to %r failed (%s): again in %g s", repo_id, _reason(error), wait)
            time.sleep(wait)
        else:
            return commit.commit_url
    raise AssertionError("the last attempt returns or raises")


def _is_refusal(error: Exception) -> bool:
    """Tell a Hub that does not want (no token, no such user, quota) from one that cannot."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def _reason(error: BaseException) -> str:
    """Return what an error, or the one that caused it, says in its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
